"""Losses on voltage traces, firing rates, spike trains and forced thresholds.

Each takes arrays of one shape and refuses to broadcast: a silent broadcast is a wrong loss.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike


def voltage_mse(v: Array, target: Array, mask: Array | None = None) -> Array:
    r"""Compare voltage traces: :math:`\sum_n m_n (v_n - \hat v_n)^2 / \sum_n m_n`, mV².

    Args:
        v: model voltage, [T] or [T, ...], mV.
        target: recorded voltage, of the same shape, mV.
        mask: where the voltage counts, of the same shape, 0 or 1; everywhere by default.

    Returns:
        Scalar, mV²; 0 where nothing counts.

    Raises:
        ValueError: where the shapes differ.

    Example:
        >>> float(voltage_mse(jnp.zeros(4), jnp.array([1.0, 1.0, 3.0, 9.0]), jnp.array([1, 1, 1, 0])))
        3.6666666666666665
    """
    _require_same_shape(v=v, target=target)
    squares = (v - jnp.asarray(target, v.dtype)) ** 2
    if mask is None:
        return jnp.mean(squares)
    _require_same_shape(v=v, mask=mask)
    weight = jnp.asarray(mask, v.dtype)
    return jnp.sum(weight * squares) / jnp.maximum(jnp.sum(weight), 1.0)


def spike_mask(spikes: ArrayLike, *, before: int, after: int) -> np.ndarray:
    """Mark the samples that are not near a spike, where a voltage without spike shapes can be compared.

    Args:
        spikes: recorded spikes, [T] or [T, N], 0 or 1.
        before: samples left out before each spike.
        after: samples left out from each spike on, the spike's own sample included.

    Returns:
        Booleans of the shape of ``spikes``, False near spikes.

    Raises:
        ValueError: for negative counts.

    Example:
        >>> spike_mask([0, 0, 0, 1, 0, 0, 0], before=1, after=2).astype(int).tolist()
        [1, 1, 0, 0, 0, 1, 1]
    """
    if before < 0 or after < 0:
        raise ValueError(f"before = {before}, after = {after} samples: both must be 0 or more")
    train = np.asarray(spikes) > 0
    # Each spike opens a hole at n - before and closes it at n + after: holes are where more opened than closed.
    edges = np.zeros((train.shape[0] + before + after + 1, *train.shape[1:]), int)
    edges[: train.shape[0]] += train
    edges[before + after : before + after + train.shape[0]] -= train
    return np.cumsum(edges, axis=0)[before : before + train.shape[0]] == 0


def rate_mse(rate: Array, target: Array) -> Array:
    r"""Compare firing rates: :math:`\mathrm{mean}\,(\nu - \hat\nu)^2`, Hz².

    Args:
        rate: model rates, [K], Hz, for instance :func:`jaxlif.theory.firing_rate` at K currents.
        target: measured rates, [K], Hz.

    Returns:
        Scalar, Hz².

    Raises:
        ValueError: where the shapes differ.

    Example:
        >>> float(rate_mse(jnp.array([10.0, 20.0]), jnp.array([12.0, 20.0])))
        2.0
    """
    _require_same_shape(rate=rate, target=target)
    return jnp.mean((rate - jnp.asarray(target, rate.dtype)) ** 2)


def spike_count_rate(spikes: Array, dt: float) -> Array:
    r"""Read firing rates off spikes: :math:`\nu = 1000\, \sum_n s_n / (T\, dt)`, with the surrogate's gradient.

    Args:
        spikes: [T] or [T, N].
        dt: step, ms.

    Returns:
        Rate in Hz, [] or [N].

    Example:
        >>> float(spike_count_rate(jnp.array([0.0, 1.0, 0.0, 0.0]), dt=1.0))
        250.0
    """
    return 1000.0 / dt * jnp.mean(spikes, axis=0)


def filtered_spikes(spikes: Array, *, tau: float, dt: float) -> Array:
    r"""Filter spike trains with a causal exponential: :math:`f_n = e^{-dt/\tau} f_{n-1} + s_n`.

    Args:
        spikes: [T] or [T, N].
        tau: time constant, ms.
        dt: step, ms.

    Returns:
        f, of the shape of ``spikes``.

    Example:
        >>> filtered_spikes(jnp.array([1.0, 0.0, 1.0]), tau=1e9, dt=1.0).round(6).tolist()
        [1.0, 1.0, 2.0]
    """
    decay = jnp.exp(jnp.asarray(-dt / tau, spikes.dtype))

    def _step(f, s):
        f = decay * f + s
        return f, f

    return jax.lax.scan(_step, jnp.zeros_like(spikes[0]), spikes)[1]


def van_rossum(spikes: Array, target: Array, *, tau: float, dt: float) -> Array:
    r"""Compare spike trains: :math:`D^2 = \frac{1}{\tau} \int_0^\infty (f - \hat f)^2 dt`, mean over trains.

    f are the trains filtered by :func:`filtered_spikes`, each spike at the end of its step. Between the steps f decays
    as one exponential, so that the integral is a sum without an error,

    .. math::
        D^2 = \frac{1}{2} \left[(1 - e^{-2 dt/\tau}) \sum_{n < T-1} (f_n - \hat f_n)^2
            + (f_{T-1} - \hat f_{T-1})^2\right].

    The gradient is that of the surrogate which made ``spikes``. For lists of spike times use
    :func:`jaxlif.spiketrains.van_rossum`, which gives the same number.

    Args:
        spikes: model spikes, [T] or [T, N].
        target: recorded spikes, of the same shape.
        tau: time constant of the comparison, ms.
        dt: step, ms.

    Returns:
        Scalar: 1/2 for one spike against none, 1 for two far apart.

    Raises:
        ValueError: where the shapes differ.

    Example:
        >>> one = jnp.zeros(100).at[10].set(1.0)
        >>> round(float(van_rossum(one, jnp.zeros(100), tau=10.0, dt=1.0)), 6)
        0.5

    Source: van Rossum 2001, doi:10.1162/089976601300014321.
    """
    _require_same_shape(spikes=spikes, target=target)
    squares = filtered_spikes(spikes - jnp.asarray(target, spikes.dtype), tau=tau, dt=dt) ** 2
    decayed = jnp.expm1(jnp.asarray(-2.0 * dt / tau, spikes.dtype))
    return 0.5 * jnp.mean(squares[-1] - decayed * jnp.sum(squares[:-1], axis=0))


def forced_spike_loss(distance: Array, spikes: Array, mask: Array | None = None) -> Array:
    r"""Ask a teacher-forced neuron to be above threshold at the recorded spikes and below it elsewhere.

    The negative log-likelihood of a logistic threshold, :math:`-\sum_n [s_n \log\sigma(x_n) +
    (1 - s_n) \log\sigma(-x_n)] / \sum_n s_n`, smooth in everything that moves x.

    Args:
        distance: :math:`x = (v - v_{th}) / \Delta`, [T] or [T, N], with v before the reset.
        spikes: recorded spikes, of the same shape.
        mask: where it counts, of the same shape; everywhere by default.

    Returns:
        Scalar, nats per spike.

    Raises:
        ValueError: where the shapes differ.

    Example:
        >>> round(float(forced_spike_loss(jnp.array([-9.0, 9.0]), jnp.array([0.0, 1.0]))), 6)
        0.000247

    Source: Jolivet et al. 2006, doi:10.1007/s10827-006-7074-5 (escape noise).
    """
    _require_same_shape(distance=distance, spikes=spikes)
    train = jnp.asarray(spikes, distance.dtype)
    terms = train * jax.nn.softplus(-distance) + (1.0 - train) * jax.nn.softplus(distance)
    if mask is not None:
        _require_same_shape(distance=distance, mask=mask)
        terms = terms * jnp.asarray(mask, distance.dtype)
    return jnp.sum(terms) / jnp.maximum(jnp.sum(train), 1.0)


def point_process_log_likelihood(
    log_rate: Array, spikes: Array, *, dt: float, active: Array | None = None, at: Array | None = None
) -> Array:
    r"""Give the log-likelihood of spikes: :math:`\sum_{spikes} \log(1 - e^{-\lambda dt}) - \sum_{others} \lambda dt`.

    It is that of a train that spikes in a step with probability :math:`1 - e^{-\lambda dt}`, as :class:`EscapeNoise`
    does, and for a small dt that of a point process, :math:`\sum \log \lambda - \int \lambda`. Above
    :math:`\lambda = e^6` per ms the rate continues as its tangent, so that no start overflows.

    Args:
        log_rate: :math:`\log \lambda` with the rate in 1/ms, [T] or [T, ...]; for escape noise
            :math:`\log\lambda_0 + (v - \theta)/\Delta_v` with the spikes forced and v before the reset.
        spikes: recorded spikes, of the same shape, 0 or 1.
        dt: step, ms.
        active: 1 where the neuron can spike, 0 while it is refractory, of the same shape; everywhere by default.
        at: places in the flat arrays, those of all spikes among them and none twice: the logarithm of a spike's
            probability is taken there alone, which saves much time; places beyond the end are ignored. Everywhere by
            default.

    Returns:
        Scalar, nats.

    Raises:
        ValueError: where the shapes differ.

    Example:
        >>> log_rate = jnp.log(jnp.full(1000, 0.02))
        >>> spikes = jnp.zeros(1000).at[jnp.array([200, 700])].set(1.0)
        >>> round(float(point_process_log_likelihood(log_rate, spikes, dt=1.0)), 3)
        -27.804

    Source: Paninski 2004, doi:10.1088/0954-898X_15_4_002; Pozzorini et al. 2015, doi:10.1371/journal.pcbi.1004275.
    """
    _require_same_shape(log_rate=log_rate, spikes=spikes)
    spiked = jnp.asarray(spikes, log_rate.dtype) > 0
    silent = ~spiked if active is None else ~spiked & (jnp.asarray(active) > 0)
    expected = jnp.sum(jnp.where(silent, _expected_spikes(log_rate, dt), 0.0))
    if at is not None:
        log_rate, spiked = (x.reshape(-1).at[at].get(mode="fill", fill_value=0) for x in (log_rate, spiked))
    return jnp.sum(jnp.where(spiked, _log_spike(log_rate, dt), 0.0)) - expected


def _expected_spikes(log_rate, dt):
    most = 6.0
    return dt * jnp.exp(jnp.minimum(log_rate, most)) * (1.0 + jnp.maximum(log_rate - most, 0.0))


def _log_spike(log_rate, dt):
    expected = _expected_spikes(log_rate, dt)
    # Below 1e-4 the series, which keeps its digits.
    likely = jnp.log(-jnp.expm1(-jnp.maximum(expected, 1e-4)))
    return jnp.where(expected < 1e-4, jnp.minimum(log_rate, 0.0) + math.log(dt) - 0.5 * expected, likely)


def bits_per_spike(log_likelihood: Array, num_spikes: float, duration: float) -> Array:
    r"""Compare a log-likelihood with a Poisson train of the same rate, :math:`(L - n \log(n/T) + n) / (n \log 2)`.

    Args:
        log_likelihood: L as a density: :func:`point_process_log_likelihood` less n log(dt), nats.
        num_spikes: n.
        duration: T, ms, summed over sweeps.

    Returns:
        Bits per spike; 0 for a model that knows only the rate.

    Example:
        >>> poisson = 20 * jnp.log(20 / 1000.0) - 20
        >>> float(bits_per_spike(poisson, 20, 1000.0))
        0.0

    Source: Pozzorini et al. 2015, doi:10.1371/journal.pcbi.1004275.
    """
    poisson = num_spikes * math.log(num_spikes / duration) - num_spikes
    return (log_likelihood - poisson) / (num_spikes * math.log(2.0))


def _require_same_shape(**arrays: Array) -> None:
    (name, a), (other, b) = arrays.items()
    if jnp.shape(a) != jnp.shape(b):
        raise ValueError(f"{name} has shape {jnp.shape(a)} and {other} {jnp.shape(b)}: they must agree")
