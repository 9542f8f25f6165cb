"""Readouts: what the last layer gave over time, [T, K], becomes the logits [K] of K classes.

A batch goes through ``jax.vmap``. For samples of different lengths each readout takes the ``mask`` [T] of a sample, as
:meth:`jaxlif.networks.Events.mask` gives it, and returns what it would for the sample alone:
``jax.vmap(mean_over_time)(v, mask)``.
"""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlif.checks import counted, integers, one_sample, positive, whole
from jaxlif.networks.classification import cross_entropy


def last(v: ArrayLike, mask: ArrayLike | None = None) -> Array:
    """Return the last step's values, as :math:`z = v_{T-1}`.

    Args:
        v: [T, K], such as the voltage of a :class:`jaxlif.LeakyIntegrator`.
        mask: the steps that count, [T], 0 or 1; all by default.

    Returns:
        Logits [K] in the unit of ``v``; nan where no step counts.

    Raises:
        ValueError: for a batch, no step, or a mask of another shape.

    Example:
        >>> last(jnp.array([[1.0, 2.0], [3.0, 0.0]])).tolist()
        [3.0, 0.0]
    """
    v = one_sample("v", v)
    if mask is None:
        return v[-1]
    steps = _steps(mask, v)
    end = jnp.max(jnp.where(steps, jnp.arange(len(v)), -1))
    return jnp.where(end < 0, jnp.nan, v[end])


def mean_over_time(v: ArrayLike, mask: ArrayLike | None = None) -> Array:
    r"""Return the mean over the steps, :math:`z = \frac{1}{T}\sum_n v_n`: every step gets the same gradient.

    Args:
        v: [T, K].
        mask: the steps that count, [T], 0 or 1; all by default.

    Returns:
        Logits [K] in the unit of ``v``; nan where no step counts.

    Raises:
        ValueError: for a batch, no step, or a mask of another shape.

    Example:
        >>> mean_over_time(jnp.array([[1.0, 2.0], [3.0, 0.0]])).tolist()
        [2.0, 1.0]
    """
    v = one_sample("v", v)
    if mask is None:
        return jnp.mean(v, axis=0)
    counts = counted(mask, "v", v)
    return jnp.sum(jnp.where(counts, v, 0.0), axis=0) / jnp.sum(counts, axis=0, dtype=v.dtype)


def max_over_time(v: ArrayLike, mask: ArrayLike | None = None) -> Array:
    r"""Return the largest value over the steps, :math:`z = \max_n v_n`: its step alone gets the gradient.

    Equal maxima share the gradient. It suits classes that show at an unknown time.

    Args:
        v: [T, K].
        mask: the steps that count, [T], 0 or 1; all by default.

    Returns:
        Logits [K] in the unit of ``v``; nan where no step counts.

    Raises:
        ValueError: for a batch, no step, or a mask of another shape.

    Example:
        >>> max_over_time(jnp.array([[1.0, 2.0], [3.0, 0.0]])).tolist()
        [3.0, 2.0]

    Source: Cramer, Stradmann, Schemmel & Zenke 2022, doi:10.1109/TNNLS.2020.3044364.
    """
    v = one_sample("v", v)
    if mask is None:
        return jnp.max(v, axis=0)
    counts = counted(mask, "v", v)
    largest = jnp.max(jnp.where(counts, v, -jnp.inf), axis=0)
    return jnp.where(counts.any(axis=0), largest, jnp.nan)


def spike_count(spikes: ArrayLike, mask: ArrayLike | None = None) -> Array:
    r"""Return the number of spikes, :math:`z = \sum_n s_n`; its gradient is that of the spikes, a surrogate's.

    Args:
        spikes: [T, K], 0 or 1.
        mask: the steps that count, [T], 0 or 1; all by default.

    Returns:
        Logits [K], a floating number of spikes.

    Raises:
        ValueError: for a batch, no step, or a mask of another shape.

    Example:
        >>> spike_count(jnp.array([[0, 1], [1, 1]])).tolist()
        [1.0, 2.0]
    """
    s = one_sample("spikes", spikes)
    return jnp.sum(s if mask is None else jnp.where(counted(mask, "spikes", s), s, 0.0), axis=0)


def first_spike_time(spikes: ArrayLike, dt: float, mask: ArrayLike | None = None) -> Array:
    r"""Return the time of the first spike, :math:`t = dt \sum_{n=0}^{T} \prod_{m<n} (1 - s_m)`, T dt + dt without one.

    The earliest class wins: the logits are ``-first_spike_time(...) / tau``. A spike in step n has the time
    (n + 1) dt, the end of its step. The gradient is that of the product with the spikes' surrogate: one more spike in
    a step before the first would bring the time forward to that step, and less of the first would put it off to the
    next. It is biased as every surrogate is; for the exact gradient of spike times use :class:`jaxlif.PreciseLIF`.

    Args:
        spikes: [T, K], 0 or 1.
        dt: step, ms.
        mask: the steps that count, [T], 0 or 1; all by default. Time ends with the last of them.

    Returns:
        Times [K], ms.

    Raises:
        ValueError: for a batch, no step, a mask of another shape, or a dt that is not positive.

    Example:
        >>> first_spike_time(jnp.array([[0, 0, 1], [0, 1, 1]]), 0.5).tolist()
        [1.5, 1.0, 0.5]

    Source: Göltz et al. 2021, doi:10.1038/s42256-021-00388-x (classes by their first spikes).
    """
    dt = positive("dt", dt, "ms")
    s = one_sample("spikes", spikes)
    if mask is None:
        return dt * (1.0 + jnp.sum(jnp.cumprod(1.0 - s, axis=0), axis=0))
    # Time runs on through steps that do not count, and ends with the last that does.
    before_end = jnp.cumsum(_steps(mask, s)[::-1])[::-1] > 0
    silent = jnp.cumprod(1.0 - jnp.where(counted(mask, "spikes", s), s, 0.0), axis=0)
    return dt * (1.0 + jnp.sum(jnp.where(counted(before_end, "spikes", s), silent, 0.0), axis=0))


def per_step_cross_entropy(logits: ArrayLike, labels: ArrayLike, skip: int = 0, mask: ArrayLike | None = None) -> Array:
    r"""Average the cross-entropy over the steps: :math:`-\frac{1}{T-s}\sum_{n \ge s} \log \mathrm{softmax}(z_n)_y`.

    For labels that change with time, or to push for an early answer: then repeat the label, ``jnp.full(T, label)``.

    Args:
        logits: [T, K] for K classes.
        labels: integers [T] from 0 to K - 1.
        skip: s, steps at the start that do not count.
        mask: the steps that count, [T], 0 or 1; all by default. Elsewhere the label may be anything.

    Returns:
        A scalar in the dtype of ``logits``, nats; nan where no step counts.

    Raises:
        ValueError: for shapes that do not match, labels that are not integers or outside 0 .. K - 1, or a skip that
            leaves no step.

    Example:
        >>> round(float(per_step_cross_entropy(jnp.zeros((10, 4)), jnp.zeros(10, int), skip=3)), 6)
        1.386294
    """
    z = one_sample("logits", logits)
    if z.ndim != 2:
        raise ValueError(f"logits {list(z.shape)}: logits must be [T, K], with an axis of classes")
    if not whole("skip", skip, unit="steps") < len(z):
        raise ValueError(f"skip = {skip} steps: skip must be 0 or more and leave one of the {len(z)} steps")
    steps = None if mask is None else _steps(mask, z)[skip:]
    return cross_entropy(z[skip:], integers("labels", labels, 1)[skip:], steps)


def _steps(mask: ArrayLike, v: Array) -> Array:
    """Return a mask of the steps of ``v``, [T] or [T, K], as booleans [T]."""
    return counted(mask, "v", v[:, 0] if v.ndim > 1 else v)
