"""Readouts: what the last layer gave over time, [T, K], becomes the logits [K] of K classes."""

import jax.numpy as jnp
from jax import Array

from jaxlif.networks.classification import cross_entropy
from jaxlif.neurons.cell import state_dtype
from jaxlif.neurons.checks import require_positive


def last(v: Array) -> Array:
    """Return the last step's values, as :math:`z = v_{T-1}`.

    Args:
        v: [T, K], such as the voltage of a :class:`jaxlif.LeakyIntegrator`.

    Returns:
        Logits [K] in the unit of ``v``.

    Raises:
        ValueError: for an array without a time axis or a step.

    Example:
        >>> last(jnp.array([[1.0, 2.0], [3.0, 0.0]])).tolist()
        [3.0, 0.0]
    """
    return _over_time(v)[-1]


def mean_over_time(v: Array) -> Array:
    r"""Return the mean over the steps, :math:`z = \frac{1}{T}\sum_n v_n`: every step gets the same gradient.

    Args:
        v: [T, K].

    Returns:
        Logits [K] in the unit of ``v``.

    Raises:
        ValueError: for an array without a time axis or a step.

    Example:
        >>> mean_over_time(jnp.array([[1.0, 2.0], [3.0, 0.0]])).tolist()
        [2.0, 1.0]
    """
    return jnp.mean(_over_time(v), axis=0)


def max_over_time(v: Array) -> Array:
    r"""Return the largest value over the steps, :math:`z = \max_n v_n`: its step alone gets the gradient.

    Equal maxima share the gradient. It suits classes that show at an unknown time.

    Args:
        v: [T, K].

    Returns:
        Logits [K] in the unit of ``v``.

    Raises:
        ValueError: for an array without a time axis or a step.

    Example:
        >>> max_over_time(jnp.array([[1.0, 2.0], [3.0, 0.0]])).tolist()
        [3.0, 2.0]

    Source: Cramer, Stradmann, Schemmel & Zenke 2022, doi:10.1109/TNNLS.2020.3044364.
    """
    return jnp.max(_over_time(v), axis=0)


def spike_count(spikes: Array) -> Array:
    r"""Return the number of spikes, :math:`z = \sum_n s_n`; its gradient is that of the spikes, a surrogate's.

    Args:
        spikes: [T, K], 0 or 1.

    Returns:
        Logits [K], a floating number of spikes.

    Raises:
        ValueError: for an array without a time axis or a step.

    Example:
        >>> spike_count(jnp.array([[0, 1], [1, 1]])).tolist()
        [1.0, 2.0]
    """
    return jnp.sum(_over_time(spikes), axis=0)


def first_spike_time(spikes: Array, dt: float) -> Array:
    r"""Return the time of the first spike, :math:`t = dt \sum_{n=0}^{T} \prod_{m<n} (1 - s_m)`, T dt + dt without one.

    The earliest class wins: the logits are ``-first_spike_time(...) / tau``. A spike in step n has the time
    (n + 1) dt, the end of its step. The gradient is that of the product with the spikes' surrogate: one more spike in
    a step before the first would bring the time forward to that step, and less of the first would put it off to the
    next. It is biased as every surrogate is; for the exact gradient of spike times use :class:`jaxlif.PreciseLIF`.

    Args:
        spikes: [T, K], 0 or 1.
        dt: step, ms.

    Returns:
        Times [K], ms.

    Raises:
        ValueError: for an array without a time axis or a step, or a dt that is not positive.

    Example:
        >>> first_spike_time(jnp.array([[0, 0, 1], [0, 1, 1]]), 0.5).tolist()
        [1.5, 1.0, 0.5]

    Source: Göltz et al. 2021, doi:10.1038/s42256-021-00388-x (classes by their first spikes).
    """
    require_positive("dt", dt, "ms")
    silent = jnp.cumprod(1.0 - _over_time(spikes), axis=0)
    return dt * (1.0 + jnp.sum(silent, axis=0))


def per_step_cross_entropy(logits: Array, labels: Array, skip: int = 0) -> Array:
    r"""Average the cross-entropy over the steps: :math:`-\frac{1}{T-s}\sum_{n \ge s} \log \mathrm{softmax}(z_n)_y`.

    For labels that change with time, or to push for an early answer: then repeat the label, ``jnp.full(T, label)``.

    Args:
        logits: [T, K] for K classes.
        labels: integers [T] from 0 to K - 1.
        skip: s, steps at the start that do not count.

    Returns:
        A scalar in the dtype of ``logits``, nats.

    Raises:
        ValueError: for shapes that do not match, labels that are not integers or outside 0 .. K - 1, or a skip that
            leaves no step.

    Example:
        >>> round(float(per_step_cross_entropy(jnp.zeros((10, 4)), jnp.zeros(10, int), skip=3)), 6)
        1.386294
    """
    steps = _over_time(logits).shape[0]
    if not 0 <= skip < steps:
        raise ValueError(f"skip = {skip} steps: skip must be 0 or more and leave one of the {steps} steps")
    return cross_entropy(logits[skip:], labels[skip:])


def _over_time(v: Array) -> Array:
    """Return a floating array, refusing one without a time axis or a step."""
    if jnp.ndim(v) < 1 or jnp.shape(v)[0] == 0:
        raise ValueError(f"a readout takes values [T, K] with T = 1 or more, not {list(jnp.shape(v))}")
    return jnp.asarray(v, state_dtype(v))
