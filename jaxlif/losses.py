"""Losses on voltages, firing rates and spikes: ``loss(model, recorded, ...)``, of one sample, [T] or [T, N].

Each refuses to broadcast: a silent broadcast is a wrong loss. A batch goes through ``jax.vmap``. What a ``mask`` leaves
out changes no number, whatever it holds. The losses of classes are in `jaxlif.networks`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, Shaped

from jaxlif import checks


def voltage_mse(
    v: Shaped[ArrayLike, "T *N"], target: Shaped[ArrayLike, "T *N"], mask: Shaped[ArrayLike, "T ..."] | None = None
) -> Float[Array, ""]:
    r"""Compare voltage traces: :math:`\sum_n m_n (v_n - \hat v_n)^2 / \sum_n m_n`, mV².

    Of the model and the cell, both in mV; the mask m, [T] or of their shape, is 0 or 1. It is 0 where nothing counts.

    Example:
        >>> float(voltage_mse(jnp.zeros(4), jnp.array([1.0, 1.0, 3.0, 9.0]), jnp.array([1, 1, 1, 0])))
        3.6666666666666665
    """
    v, target = _alike(v=v, target=target)
    if mask is None:
        return jnp.mean((v - target) ** 2)
    counts = checks.counted(mask, "v", v)
    # Before the square: what is left out may be nan, and its slope then is, too.
    squares = jnp.where(counts, v - target, 0.0) ** 2
    return jnp.sum(squares) / jnp.maximum(jnp.sum(counts, dtype=v.dtype), 1.0)


def spike_mask(spikes: Shaped[ArrayLike, "T *N"], *, before: int, after: int) -> Bool[np.ndarray, "T *N"]:
    """Mark the samples that are not near a spike, where a voltage without spike shapes can be compared.

    False for the samples ``before`` each spike, and for those ``after`` it, the spike's own sample included.

    Example:
        >>> spike_mask([0, 0, 0, 1, 0, 0, 0], before=1, after=2).astype(int).tolist()
        [1, 1, 0, 0, 0, 1, 1]
    """
    before, after = (checks.whole(*x, unit="samples") for x in (("before", before), ("after", after)))
    train = np.asarray(checks.numbers("spikes", spikes)) > 0
    checks.require_sample("spikes", train.shape)
    # Each spike opens a hole at n - before and closes it at n + after: holes are where more opened than closed.
    edges = np.zeros((train.shape[0] + before + after + 1, *train.shape[1:]), np.int32)
    edges[: train.shape[0]] += train
    edges[before + after : before + after + train.shape[0]] -= train
    clear: np.ndarray = np.cumsum(edges, axis=0, out=edges)[before : before + train.shape[0]] == 0
    return clear


def rate_mse(rate: Shaped[ArrayLike, "*K"], target: Shaped[ArrayLike, "*K"]) -> Float[Array, ""]:
    r"""Compare firing rates: :math:`\mathrm{mean}\,(\nu - \hat\nu)^2`, Hz², of model and cell, each [K] or [K, N].

    Example:
        >>> float(rate_mse(jnp.array([10.0, 20.0]), jnp.array([12.0, 20.0])))
        2.0
    """
    rate, target = _alike(lowest=0, rate=rate, target=target)
    return jnp.mean((rate - target) ** 2)


def spike_count_rate(
    spikes: Shaped[ArrayLike, "T *N"], dt: float, mask: Shaped[ArrayLike, "T"] | None = None
) -> Float[Array, "*N"]:
    r"""Read rates off spikes: :math:`\nu = 1000\, \sum_n m_n s_n / (dt \sum_n m_n)`, with the surrogate's gradient.

    In Hz; dt in ms, the mask m [T] 0 or 1. It is nan where no step counts.

    Example:
        >>> float(spike_count_rate(jnp.array([0.0, 1.0, 0.0, 0.0]), dt=1.0))
        250.0
    """
    train = checks.floating("spikes", spikes)
    checks.require_sample("spikes", train.shape)
    dt = checks.positive("dt", dt, "ms")
    if mask is None:
        return 1000.0 / dt * jnp.mean(train, axis=0)
    counts = checks.counted(mask, "spikes", train)
    return 1000.0 / dt * jnp.sum(jnp.where(counts, train, 0.0), axis=0) / jnp.sum(counts, axis=0, dtype=train.dtype)


def interval_cv(spikes: Shaped[ArrayLike, "T *N"], *, at_least: int = 3) -> Float[Array, ""]:
    r"""Read the variability of intervals off spikes: :math:`CV = \mathrm{sd}(ISI) / \mathrm{mean}(ISI)`, averaged over
    the neurons with so many intervals; nan where there is none.

    The number of intervals, their sum and that of their squares are found through the age a since the last spike, by
    sums :math:`\sum_n s_n a_n^2` that are linear in each :math:`s_n`: the slope with respect to a spike, which the
    surrogate carries on, is what they change by where it appears or vanishes.

    Example:
        >>> spikes = jnp.zeros(100).at[jnp.array([0, 10, 40, 50, 80])].set(1.0)
        >>> float(interval_cv(spikes))  # of intervals of 10, 30, 10 and 30 steps
        0.5
    """
    at_least = checks.whole("at_least", at_least, 2, "intervals")
    train = checks.floating("spikes", spikes)
    checks.require_sample("spikes", train.shape)

    def _step(carry: tuple[Array, ...], s: Array) -> tuple[tuple[Array, ...], None]:
        *moments, known, age, square = carry  # of an age that is 0 before the first spike, when nothing is known
        found = tuple(x + s * a for x, a in zip(moments, (known, age, square), strict=True))
        older = known, age + known, square + 2.0 * age + known
        return (*found, *(s + (1.0 - s) * a for a in older)), None

    zero = jnp.zeros_like(train[0])
    # What is known of an age at a step is its power at the spike before, one step later.
    count, total, squares, *_ = jax.lax.scan(jax.checkpoint(_step), (zero,) * 6, train)[0]
    counts = count >= at_least
    count, total = (jnp.where(counts, x, 1.0) for x in (count, total))
    variance = jnp.where(counts, squares * count / total**2 - 1.0, 0.0)
    uneven = variance > 0.0  # the root has no slope at 0
    each = jnp.where(uneven, jnp.sqrt(jnp.where(uneven, variance, 1.0)), 0.0)
    return _mean_over(each, counts)


def count_correlation(spikes: Shaped[ArrayLike, "T N"], dt: float, *, width: float) -> Float[Array, ""]:
    r"""Read the mean correlation of spike counts in bins of ``width`` ms off spikes, over all pairs of neurons whose
    counts vary; nan where there is no pair.

    It is :math:`(\mathrm{var} \sum_i z_i / n - 1) / (n - 1)` of n standardised counts :math:`z_i`. The width is a whole
    number of steps; a last part of a bin is left out.

    Example:
        >>> one = jnp.array([1.0, 0.0, 0.0, 1.0])
        >>> round(float(count_correlation(jnp.stack([one, one, 1.0 - one], axis=1), 1.0, width=1.0)), 6)
        -0.333333
    """
    train = checks.numbers("spikes", spikes, rank=2)
    train = checks.floating("spikes", train)
    steps, dt = checks.positive("width", width, "ms") / checks.positive("dt", dt, "ms"), float(dt)
    if abs(steps - round(steps)) > 1e-6 * steps or round(steps) < 1:
        raise ValueError(f"width = {width:g} ms: it must be a whole number of steps of dt = {dt:g} ms")
    bins = len(train) // round(steps)
    if bins < 2:
        raise ValueError(f"width = {width:g} ms: two bins at least must fit into the {len(train) * dt:g} ms there are")
    counts = train[: bins * round(steps)].reshape(bins, round(steps), -1).sum(axis=1)
    away = counts - counts.mean(axis=0, keepdims=True)
    variance = jnp.mean(away**2, axis=0, keepdims=True)
    varies = variance > 0.0
    z = jnp.where(varies, away / jnp.sqrt(jnp.where(varies, variance, 1.0)), 0.0)
    n = jnp.sum(varies, dtype=train.dtype)
    several = n > 1
    n = jnp.where(several, n, 2.0)
    return jnp.where(several, (jnp.mean(jnp.sum(z, axis=1) ** 2) / n - 1.0) / (n - 1.0), jnp.nan)


def van_rossum(
    spikes: Shaped[ArrayLike, "T *N"], target: Shaped[ArrayLike, "T *N"], *, tau: float, dt: float
) -> Float[Array, ""]:
    r"""Compare spike trains: :math:`D^2 = \frac{1}{\tau} \int_0^\infty (f - \hat f)^2 dt`, mean over trains.

    f are the trains filtered by a causal exponential, :math:`f_n = e^{-dt/\tau} f_{n-1} + s_n`, each spike at the end
    of its step. Between the steps f decays as one exponential, so that the integral is a sum without an error,

    .. math::
        D^2 = \frac{1}{2} \left[(1 - e^{-2 dt/\tau}) \sum_{n < T-1} (f_n - \hat f_n)^2
            + (f_{T-1} - \hat f_{T-1})^2\right].

    Of the model's spikes, with the gradient of their surrogate, and the recorded ones; tau and dt in ms. It is 1/2 for
    one spike against none, 1 for two far apart.

    Example:
        >>> one = jnp.zeros(100).at[10].set(1.0)
        >>> round(float(van_rossum(one, jnp.zeros(100), tau=10.0, dt=1.0)), 6)
        0.5

    Source: van Rossum 2001, doi:10.1162/089976601300014321.
    """
    train, other = _alike(spikes=spikes, target=target)
    tau, dt = checks.positive("tau", tau, "ms"), checks.positive("dt", dt, "ms")
    difference = train - other
    decay = jnp.exp(jnp.asarray(-dt / tau, train.dtype))

    def _filtered(f: Array, s: Array) -> tuple[Array, Array]:
        f = decay * f + s
        return f, f

    squares = jax.lax.scan(_filtered, jnp.zeros_like(difference[0]), difference)[1] ** 2
    decayed = jnp.expm1(jnp.asarray(-2.0 * dt / tau, train.dtype))
    return 0.5 * jnp.mean(squares[-1] - decayed * jnp.sum(squares[:-1], axis=0))


def point_process_log_likelihood(
    log_rate: Shaped[ArrayLike, "T *N"],
    spikes: Shaped[ArrayLike, "T *N"],
    *,
    dt: float,
    active: Shaped[ArrayLike, "T *N"] | None = None,
    at: Int[ArrayLike, "places"] | None = None,
) -> Float[Array, ""]:
    r"""Give the log-likelihood of spikes: :math:`\sum_{spikes} \log(1 - e^{-\lambda dt}) - \sum_{others} \lambda dt`.

    In nats, of a train that spikes in a step with probability :math:`1 - e^{-\lambda dt}`, as :class:`EscapeNoise`
    does, and for a small dt that of a point process, :math:`\sum \log \lambda - \int \lambda`. Above
    :math:`\lambda = e^6` per ms the rate continues as its tangent, so that no start overflows.

    Args:
        log_rate: :math:`\log \lambda` with the rate in 1/ms, [T] or [T, N]; for escape noise
            :math:`\log\lambda_0 + (v - \theta)/\Delta_v` with the spikes forced and v before the reset.
        spikes: recorded spikes, of the same shape, 0 or 1.
        dt: step, ms.
        active: 1 where the neuron can spike, 0 while it is refractory, of the same shape; everywhere by default. Where
            it spikes, that counts all the same.
        at: places in the flat arrays, those of all spikes among them and none twice: the logarithm of a spike's
            probability is taken there alone, which saves much time; places beyond the end are ignored. Everywhere by
            default.

    Example:
        >>> log_rate = jnp.log(jnp.full(1000, 0.02))
        >>> spikes = jnp.zeros(1000).at[jnp.array([200, 700])].set(1.0)
        >>> round(float(point_process_log_likelihood(log_rate, spikes, dt=1.0)), 3)
        -27.804

    Source: Paninski 2004, doi:10.1088/0954-898X_15_4_002; Pozzorini et al. 2015, doi:10.1371/journal.pcbi.1004275.
    """
    log_rate, train = _alike(log_rate=log_rate, spikes=spikes)
    checks.require_binary("spikes", train)
    dt = checks.positive("dt", dt, "ms")
    spiked = train > 0
    silent = ~spiked
    if active is not None:
        _, can = _alike(log_rate=log_rate, active=active)
        checks.require_binary("active", can)
        silent = silent & can.astype(bool)
    expected = jnp.sum(jnp.where(silent, _expected_spikes(log_rate, dt), 0.0))
    if at is not None:
        places = checks.integers("at", at, 1)
        log_rate, spiked = (x.reshape(-1).at[places].get(mode="fill", fill_value=0) for x in (log_rate, spiked))
    return jnp.sum(jnp.where(spiked, _log_spike(log_rate, dt), 0.0)) - expected


def _expected_spikes(log_rate: Array, dt: float) -> Array:
    most = 6.0
    return dt * jnp.exp(jnp.minimum(log_rate, most)) * (1.0 + jnp.maximum(log_rate - most, 0.0))


def _log_spike(log_rate: Array, dt: float) -> Array:
    expected = _expected_spikes(log_rate, dt)
    # Below 1e-4 the series, which keeps its digits.
    likely = jnp.log(-jnp.expm1(-jnp.maximum(expected, 1e-4)))
    return jnp.where(expected < 1e-4, jnp.minimum(log_rate, 0.0) + math.log(dt) - 0.5 * expected, likely)


def bits_per_spike(
    log_likelihood: Float[ArrayLike, ""], num_spikes: float, duration: float
) -> Float[Array, ""] | float:
    r"""Compare a log-likelihood with a Poisson train of the same rate, :math:`(L - n \log(n/T) + n) / (n \log 2)`.

    L is a density, nats: :func:`point_process_log_likelihood` less n log(dt); T in ms, summed over sweeps. A model that
    knows only the rate has 0.

    Example:
        >>> float(bits_per_spike(20 * jnp.log(20 / 1000.0) - 20, 20, 1000.0))
        0.0

    Source: Pozzorini et al. 2015, doi:10.1371/journal.pcbi.1004275.
    """
    num_spikes = checks.positive("num_spikes", num_spikes, "spikes")
    duration = checks.positive("duration", duration, "ms")
    poisson = num_spikes * math.log(num_spikes / duration) - num_spikes
    nats: Array | float = checks.numbers("log_likelihood", log_likelihood, "nats", rank=0, finite=False) - poisson
    return nats / (float(num_spikes) * math.log(2.0))


def _mean_over(x: Array, counts: Array) -> Array:
    """Return the mean of what counts, nan where nothing does."""
    total = jnp.sum(counts, dtype=x.dtype)
    return jnp.where(total > 0, jnp.sum(jnp.where(counts, x, 0.0)) / jnp.maximum(total, 1.0), jnp.nan)


def _alike(lowest: int = 1, **arrays: ArrayLike) -> tuple[Array, Array]:
    """Return two floating arrays of one shape and of the first's precision, refusing a batch."""
    (name, first), (other, second) = ((field, checks.floating(field, x)) for field, x in arrays.items())
    checks.require_same_shape(**{name: first, other: second})
    checks.require_sample(name, first.shape, lowest)
    return first, second.astype(first.dtype)
