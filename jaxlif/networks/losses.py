"""Losses of classification, and a penalty on rates.

What the last layer gave over time, v [T, K], becomes the logits [K] of K classes by one call: ``v[-1]``,
``jnp.mean(v, axis=0)``, ``jnp.max(v, axis=0)``, ``jnp.sum(spikes, axis=0)``; of a padded sample with its ``mask`` [T],
``jnp.mean(v, axis=0, where=mask[:, None])``.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Shaped

from jaxlif.checks import (
    concrete,
    counted,
    floating,
    integers,
    not_negative,
    numbers,
    positive,
    require,
    require_not_negative,
)
from jaxlif.losses import spike_count_rate
from jaxlif.neurons.precise import PreciseOutput, nth_spike_time


def cross_entropy(
    logits: Shaped[ArrayLike, "*B K"],
    labels: Shaped[ArrayLike, "*B"],
    mask: Shaped[ArrayLike, "*B"] | None = None,
    *,
    class_weight: Shaped[ArrayLike, "K"] | None = None,
) -> Float[Array, ""]:
    r"""Average :math:`-\log \mathrm{softmax}(z)_{label}` over the samples, or over samples and steps.

    Args:
        logits: z [..., K] for K classes.
        labels: integers [...] from 0 to K - 1.
        mask: what counts, of the shape of ``labels``, 0 or 1; all by default. Elsewhere the label may be anything.
        class_weight: w [K], 0 or more, for the mean :math:`\sum w_{label} l / \sum w_{label}` of a batch; for classes
            that are rare :math:`n / (K n_k)` gives each the same say.

    Returns:
        A scalar in the dtype of ``logits``, nats; nan where nothing counts, and under a trace for a label outside
        0 .. K - 1.

    Example:
        >>> round(float(cross_entropy(jnp.zeros((2, 4)), jnp.array([0, 3]))), 6)
        1.386294
    """
    z, y, counts = _checked(logits, labels, mask)
    if counts is not None:
        # Before the logarithm: what does not count may be nan, and its slope then is, too.
        z, y = jnp.where(counts[..., None], z, 0.0), jnp.where(counts, y, 0)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(z), y[..., None], axis=-1)[..., 0]
    # A negative label would count from the end.
    chosen = jnp.where((y >= 0) & (y < z.shape[-1]), chosen, jnp.nan)
    if class_weight is None:
        return -jnp.mean(chosen, where=counts)
    weight = _class_weight(class_weight, z)[y]
    return -jnp.sum(weight * chosen, where=counts) / jnp.sum(weight, where=counts)


def accuracy(
    logits: Shaped[ArrayLike, "*B K"], labels: Shaped[ArrayLike, "*B"], mask: Shaped[ArrayLike, "*B"] | None = None
) -> Float[Array, ""]:
    """Return the fraction of samples whose largest logit is at the label, without a gradient.

    Arguments and errors are those of :func:`cross_entropy`; the result is nan where a logit is.

    Example:
        >>> float(accuracy(jnp.array([[0.0, 2.0], [3.0, 1.0]]), jnp.array([1, 1])))
        0.5
    """
    z, y, counts = _checked(logits, labels, mask)
    right = (jnp.argmax(z, axis=-1).astype(y.dtype) == y).astype(z.dtype)
    # The largest of numbers that are none is none.
    return jnp.mean(jnp.where(jnp.isnan(z).any(axis=-1), jnp.nan, right), where=counts)


def first_spike_logits(
    output: PreciseOutput, v_th: ArrayLike, *, dt: float, tau: float, late: float
) -> Float[Array, " K"]:
    r"""Let the earliest neuron win: logits :math:`z = -t_{first}/\tau`, or :math:`-(T + l\,(v_{th} - v_{max}))/\tau`.

    The second is of a neuron that is silent for the T ms: the further below threshold its highest voltage at the ends
    of steps, the later. So a silent neuron has a direction too, with the exact gradient of its voltage.

    Args:
        output: of the last layer, leaves [T, K].
        v_th: its threshold, a number or [K].
        dt: step, ms.
        tau: ms by which a spike must lead to be e times as likely.
        late: l, ms for a distance of 1 to threshold.

    Returns:
        [K], for :func:`jaxlif.networks.cross_entropy`.

    Example:
        >>> zeros = jnp.zeros((2, 2))
        >>> output = PreciseOutput(zeros.at[1, 0].set(1.0), zeros + 0.5, zeros.at[1, 0].set(3.0))
        >>> first_spike_logits(output, 1.0, dt=5.0, tau=2.0, late=4.0).tolist()
        [-4.0, -6.0]

    Source: Göltz et al. 2021, doi:10.1038/s42256-021-00388-x (the softmax of first spikes).
    """
    tau, late = positive("tau", tau, "ms"), not_negative("late", late, "ms")
    first = nth_spike_time(output, 0, dt)
    if jnp.shape(v_th) not in ((), first.shape):
        raise ValueError(f"v_th has shape {list(jnp.shape(v_th))}: it must be a number or {list(first.shape)}")
    silent = ~jnp.isfinite(first)
    distance = jnp.maximum(jnp.asarray(v_th, first.dtype) - jnp.max(output.v, axis=0), 0.0)
    return -jnp.where(silent, len(output.v) * dt + late * distance, jnp.where(silent, 0.0, first)) / tau


def activity_band(
    spikes: Shaped[ArrayLike, "T *N"], low: float, high: float, dt: float, mask: Shaped[ArrayLike, "T"] | None = None
) -> Float[Array, ""]:
    r"""Penalise rates outside a band: :math:`\mathrm{mean}_i\,(\nu_i - \mathrm{clip}(\nu_i, \nu_{low}, \nu_{high}))^2`.

    Args:
        spikes: 0 or 1, [T] or [T, N], of one sample, or means over samples.
        low, high: lowest and highest rate without penalty, Hz.
        dt: step, ms.
        mask: the steps that count, [T], 0 or 1; all by default.

    Returns:
        A scalar, Hz²; nan where no step counts.

    Example:
        >>> spikes = jnp.zeros((1000, 2)).at[:30, 0].set(1.0).at[:8, 1].set(1.0)  # 30 Hz and 8 Hz
        >>> float(activity_band(spikes, 10.0, 20.0, 1.0))
        52.0
    """
    low = not_negative("low", low, "Hz")
    if not low <= numbers("high", high, "Hz", rank=0, finite=False):
        raise ValueError(f"low = {low:g} Hz: low must not exceed high = {high:g} Hz")
    rate = spike_count_rate(spikes, dt, mask)
    return jnp.mean(jnp.maximum(rate - high, 0.0) ** 2 + jnp.maximum(low - rate, 0.0) ** 2)


def _class_weight(class_weight: ArrayLike, z: Array) -> Array:
    """Return the classes' weights in the dtype of the logits; refuse another number of them, and negative ones."""
    weight = jnp.asarray(numbers("class_weight", class_weight, rank=1), z.dtype)
    if weight.shape != z.shape[-1:]:
        raise ValueError(f"class_weight has {len(weight)} weights: logits have {z.shape[-1]} classes")
    return jnp.asarray(require_not_negative("class_weight", weight, ""))


def _checked(logits: ArrayLike, labels: ArrayLike, mask: ArrayLike | None) -> tuple[Array, Array, Array | None]:
    """Return floating logits, labels and where they count; refuse shapes and labels that do not fit."""
    z, y = floating("logits", logits), integers("labels", labels)
    if not z.ndim or z.shape[:-1] != y.shape:
        shapes = f"logits {list(z.shape)}, labels {list(y.shape)}"
        raise ValueError(f"{shapes}: logits must have the labels' shape and one axis of classes after it")
    counts = None if mask is None else counted(mask, "labels", y)
    # Before they are of JAX's width, in which 2^32 is 0; eight bits would not hold the numbers of 300 classes.
    if concrete(y) and (counts is None or concrete(counts)):
        ok = (np.asarray(y) >= 0) & (np.asarray(y) < z.shape[-1])
        ok |= False if counts is None else ~np.asarray(counts)
        require(ok, "labels", y, "", f"labels must lie between 0 and {z.shape[-1] - 1}")
    return z, jnp.asarray(y, int), counts
