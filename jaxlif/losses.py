"""Losses on voltage traces, firing rates, spike trains and forced thresholds.

Each takes one sample, [T] or [T, N], and refuses to broadcast: a silent broadcast is a wrong loss. A batch goes through
``jax.vmap``. Samples of different lengths in one batch come with a ``mask`` [T] each, as
:meth:`jaxlif.networks.Events.mask` gives them: what it leaves out changes no number, whatever it holds.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlif.checks import integers, numbers, positive, require_same_shape, single, whole


def voltage_mse(v: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None) -> Array:
    r"""Compare voltage traces: :math:`\sum_n m_n (v_n - \hat v_n)^2 / \sum_n m_n`, mV².

    Args:
        v: model voltage, [T] or [T, N], mV.
        target: recorded voltage, of the same shape, mV.
        mask: where the voltage counts, [T] or of the same shape, 0 or 1; everywhere by default.

    Returns:
        Scalar, mV²; 0 where nothing counts.

    Raises:
        ValueError: where the shapes differ, or are those of a batch.

    Example:
        >>> float(voltage_mse(jnp.zeros(4), jnp.array([1.0, 1.0, 3.0, 9.0]), jnp.array([1, 1, 1, 0])))
        3.6666666666666665
    """
    v, target = _alike(v=v, target=target)
    if mask is None:
        return jnp.mean((v - target) ** 2)
    counts = counted(mask, "v", v)
    # Before the square: what is left out may be nan, and its slope then is, too.
    squares = jnp.where(counts, v - target, 0.0) ** 2
    return jnp.sum(squares) / jnp.maximum(jnp.sum(counts, dtype=v.dtype), 1.0)


def spike_mask(spikes: ArrayLike, *, before: int, after: int) -> np.ndarray:
    """Mark the samples that are not near a spike, where a voltage without spike shapes can be compared.

    Args:
        spikes: recorded spikes, [T] or [T, N], 0 or 1.
        before: samples left out before each spike.
        after: samples left out from each spike on, the spike's own sample included.

    Returns:
        Booleans of the shape of ``spikes``, False near spikes.

    Raises:
        ValueError: for counts that are not whole numbers of 0 or more, or spikes of another rank.

    Example:
        >>> spike_mask([0, 0, 0, 1, 0, 0, 0], before=1, after=2).astype(int).tolist()
        [1, 1, 0, 0, 0, 1, 1]
    """
    before, after = whole("before", before, unit="samples"), whole("after", after, unit="samples")
    train = np.asarray(numbers("spikes", spikes)) > 0
    _require_rank("spikes", train.shape)
    # Each spike opens a hole at n - before and closes it at n + after: holes are where more opened than closed.
    edges = np.zeros((train.shape[0] + before + after + 1, *train.shape[1:]), np.int32)
    edges[: train.shape[0]] += train
    edges[before + after : before + after + train.shape[0]] -= train
    return np.cumsum(edges, axis=0, out=edges)[before : before + train.shape[0]] == 0


def rate_mse(rate: ArrayLike, target: ArrayLike) -> Array:
    r"""Compare firing rates: :math:`\mathrm{mean}\,(\nu - \hat\nu)^2`, Hz².

    Args:
        rate: model rates, [K] or [K, N], Hz, for instance :func:`jaxlif.theory.firing_rate` at K currents.
        target: measured rates, of the same shape, Hz.

    Returns:
        Scalar, Hz².

    Raises:
        ValueError: where the shapes differ, or are those of a batch.

    Example:
        >>> float(rate_mse(jnp.array([10.0, 20.0]), jnp.array([12.0, 20.0])))
        2.0
    """
    rate, target = _alike(lowest=0, rate=rate, target=target)
    return jnp.mean((rate - target) ** 2)


def spike_count_rate(spikes: ArrayLike, dt: float, mask: ArrayLike | None = None) -> Array:
    r"""Read rates off spikes: :math:`\nu = 1000\, \sum_n m_n s_n / (dt \sum_n m_n)`, with the surrogate's gradient.

    Args:
        spikes: [T] or [T, N].
        dt: step, ms.
        mask: the steps that count, [T], 0 or 1; all by default.

    Returns:
        Rate in Hz, [] or [N]; nan where no step counts.

    Raises:
        ValueError: for spikes of another rank, such as a batch, a mask of another shape, or a dt that is not positive.

    Example:
        >>> float(spike_count_rate(jnp.array([0.0, 1.0, 0.0, 0.0]), dt=1.0))
        250.0
    """
    train = one_sample("spikes", spikes)
    dt = positive("dt", dt, "ms")
    if mask is None:
        return 1000.0 / dt * jnp.mean(train, axis=0)
    counts = counted(mask, "spikes", train)
    return 1000.0 / dt * jnp.sum(jnp.where(counts, train, 0.0), axis=0) / jnp.sum(counts, axis=0, dtype=train.dtype)


def filtered_spikes(spikes: ArrayLike, *, tau: float, dt: float) -> Array:
    r"""Filter spike trains with a causal exponential: :math:`f_n = e^{-dt/\tau} f_{n-1} + s_n`.

    Args:
        spikes: [T] or [T, N].
        tau: time constant, ms.
        dt: step, ms.

    Returns:
        f, of the shape of ``spikes``.

    Raises:
        ValueError: for spikes of another rank, such as a batch, or a tau or dt that is not positive.

    Example:
        >>> filtered_spikes(jnp.array([1.0, 0.0, 1.0]), tau=1e9, dt=1.0).round(6).tolist()
        [1.0, 1.0, 2.0]
    """
    train = one_sample("spikes", spikes)
    dt = positive("dt", dt, "ms")
    tau = positive("tau", tau, "ms")
    decay = jnp.exp(jnp.asarray(-dt / tau, train.dtype))

    def _step(f, s):
        f = decay * f + s
        return f, f

    return jax.lax.scan(_step, jnp.zeros_like(train[0]), train)[1]


def van_rossum(spikes: ArrayLike, target: ArrayLike, *, tau: float, dt: float, mask: ArrayLike | None = None) -> Array:
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
        mask: the steps whose spikes count, [T] or of the same shape, 0 or 1; all by default.

    Returns:
        Scalar: 1/2 for one spike against none, 1 for two far apart.

    Raises:
        ValueError: where the shapes differ, or are those of a batch, or a tau or dt is not positive.

    Example:
        >>> one = jnp.zeros(100).at[10].set(1.0)
        >>> round(float(van_rossum(one, jnp.zeros(100), tau=10.0, dt=1.0)), 6)
        0.5

    Source: van Rossum 2001, doi:10.1162/089976601300014321.
    """
    train, other = _alike(spikes=spikes, target=target)
    difference = train - other
    if mask is not None:
        difference = jnp.where(counted(mask, "spikes", train), difference, 0.0)
    squares = filtered_spikes(difference, tau=tau, dt=dt) ** 2
    decayed = jnp.expm1(jnp.asarray(-2.0 * dt / tau, train.dtype))
    return 0.5 * jnp.mean(squares[-1] - decayed * jnp.sum(squares[:-1], axis=0))


def forced_spike_loss(distance: ArrayLike, spikes: ArrayLike, mask: ArrayLike | None = None) -> Array:
    r"""Ask a teacher-forced neuron to be above threshold at the recorded spikes and below it elsewhere.

    The negative log-likelihood of a logistic threshold, :math:`-\sum_n m_n [s_n \log\sigma(x_n) +
    (1 - s_n) \log\sigma(-x_n)] / \sum_n m_n s_n`, smooth in everything that moves x.

    Args:
        distance: :math:`x = (v - v_{th}) / \Delta`, [T] or [T, N], with v before the reset.
        spikes: recorded spikes, of the same shape.
        mask: where it counts, [T] or of the same shape, 0 or 1; everywhere by default.

    Returns:
        Scalar, nats per spike that counts.

    Raises:
        ValueError: where the shapes differ, or are those of a batch.

    Example:
        >>> round(float(forced_spike_loss(jnp.array([-9.0, 9.0]), jnp.array([0.0, 1.0]))), 6)
        0.000247

    Source: Jolivet et al. 2006, doi:10.1007/s10827-006-7074-5 (escape noise).
    """
    x, train = _alike(distance=distance, spikes=spikes)
    counts = None if mask is None else counted(mask, "distance", x)
    if counts is not None:
        x, train = jnp.where(counts, x, 0.0), jnp.where(counts, train, 0.0)
    terms = train * jax.nn.softplus(-x) + (1.0 - train) * jax.nn.softplus(x)
    total = jnp.sum(terms if counts is None else jnp.where(counts, terms, 0.0))
    return total / jnp.maximum(jnp.sum(train), 1.0)


def point_process_log_likelihood(
    log_rate: ArrayLike,
    spikes: ArrayLike,
    *,
    dt: float,
    active: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    at: Array | None = None,
) -> Array:
    r"""Give the log-likelihood of spikes: :math:`\sum_{spikes} \log(1 - e^{-\lambda dt}) - \sum_{others} \lambda dt`.

    It is that of a train that spikes in a step with probability :math:`1 - e^{-\lambda dt}`, as :class:`EscapeNoise`
    does, and for a small dt that of a point process, :math:`\sum \log \lambda - \int \lambda`. Above
    :math:`\lambda = e^6` per ms the rate continues as its tangent, so that no start overflows.

    Args:
        log_rate: :math:`\log \lambda` with the rate in 1/ms, [T] or [T, N]; for escape noise
            :math:`\log\lambda_0 + (v - \theta)/\Delta_v` with the spikes forced and v before the reset.
        spikes: recorded spikes, of the same shape, 0 or 1.
        dt: step, ms.
        active: 1 where the neuron can spike, 0 while it is refractory, of the same shape; everywhere by default. Where
            it spikes, that counts all the same.
        mask: where spikes and silence count, [T] or of the same shape, 0 or 1; everywhere by default.
        at: places in the flat arrays, those of all spikes among them and none twice: the logarithm of a spike's
            probability is taken there alone, which saves much time; places beyond the end are ignored. Everywhere by
            default.

    Returns:
        Scalar, nats.

    Raises:
        ValueError: where the shapes differ, or are those of a batch, or a dt is not positive.

    Example:
        >>> log_rate = jnp.log(jnp.full(1000, 0.02))
        >>> spikes = jnp.zeros(1000).at[jnp.array([200, 700])].set(1.0)
        >>> round(float(point_process_log_likelihood(log_rate, spikes, dt=1.0)), 3)
        -27.804

    Source: Paninski 2004, doi:10.1088/0954-898X_15_4_002; Pozzorini et al. 2015, doi:10.1371/journal.pcbi.1004275.
    """
    log_rate, train = _alike(log_rate=log_rate, spikes=spikes)
    _require_binary("spikes", train)
    dt = positive("dt", dt, "ms")
    spiked = train > 0
    silent = ~spiked
    if active is not None:
        active = floating("active", active)
        require_same_shape(log_rate=log_rate, active=active)
        _require_binary("active", active)
        silent = silent & active.astype(bool)
    if mask is not None:
        counts = counted(mask, "log_rate", log_rate)
        spiked, silent = spiked & counts, silent & counts
        log_rate = jnp.where(counts, log_rate, 0.0)
    expected = jnp.sum(jnp.where(silent, _expected_spikes(log_rate, dt), 0.0))
    if at is not None:
        at = integers("at", at, 1)
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

    Raises:
        ValueError: for a number of spikes or a duration that is not positive.

    Example:
        >>> poisson = 20 * jnp.log(20 / 1000.0) - 20
        >>> float(bits_per_spike(poisson, 20, 1000.0))
        0.0

    Source: Pozzorini et al. 2015, doi:10.1371/journal.pcbi.1004275.
    """
    num_spikes = positive("num_spikes", num_spikes, "spikes")
    duration = positive("duration", duration, "ms")
    poisson = num_spikes * math.log(num_spikes / duration) - num_spikes
    return (numbers("log_likelihood", log_likelihood, "nats", finite=False) - poisson) / (num_spikes * math.log(2.0))


def _alike(lowest: int = 1, **arrays: ArrayLike) -> tuple[Array, Array]:
    """Return two floating arrays of one shape and of the first's precision, refusing a batch."""
    (name, first), (other, second) = arrays.items()
    first, second = floating(name, first), floating(other, second)
    require_same_shape(**{name: first, other: second})
    _require_rank(name, first.shape, lowest)
    return first, second.astype(first.dtype)


def one_sample(name: str, x: ArrayLike) -> Array:
    """Return one sample, [T] or [T, N], as a floating array, refusing a batch."""
    array = floating(name, x)
    _require_rank(name, array.shape)
    return array


def floating(name: str, x: ArrayLike) -> Array:
    """Return numbers as a floating JAX array, single at least, integers and booleans in its default precision."""
    return single(jnp.asarray(numbers(name, x, finite=False)))


def counted(mask: ArrayLike, name: str, x: Array) -> Array:
    """Return where a mask, [T] or of the shape of ``x``, counts: booleans of that shape."""
    shape = np.shape(mask)
    if shape not in (x.shape[:1], x.shape):
        raise ValueError(f"{name} has shape {x.shape} and mask {shape}: they must agree, or mask be {x.shape[:1]}")
    counts = floating("mask", mask)
    _require_binary("mask", counts)
    counts = counts.astype(bool)
    return jnp.broadcast_to(counts.reshape(shape + (1,) * (x.ndim - len(shape))), x.shape)


def _require_binary(name: str, x: Array) -> None:
    if not isinstance(x, jax.core.Tracer) and not np.isin(x, (0, 1)).all():
        raise ValueError(f"{name} holds values other than 0 and 1: it must say yes or no of each step")


def _require_rank(name: str, shape: tuple[int, ...], lowest: int = 1) -> None:
    if not lowest <= len(shape) <= 2 or 0 in shape[:lowest]:
        rule = "it must be one sample, [T] or [T, N] with a step at least; a batch goes through jax.vmap"
        raise ValueError(f"{name} has shape {shape}: {rule}")
