"""Classification: cross-entropy and accuracy of readouts."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxlif.checks import concrete, counted, floating, integers, require, whole


def cross_entropy(logits: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None) -> Array:
    r"""Average :math:`-\log \mathrm{softmax}(z)_{label}` over the samples.

    A readout becomes logits by its mean or its maximum over time, as in ``output.output.v.mean(axis=0)``.

    Args:
        logits: z [..., K] for K classes.
        labels: integers [...] from 0 to K - 1.
        mask: the samples that count, of the shape of ``labels``, 0 or 1; all by default. Elsewhere the label may be
            anything.

    Returns:
        A scalar in the dtype of ``logits``, nats; nan where nothing counts, and under a trace for a label outside
        0 .. K - 1.

    Raises:
        ValueError: for shapes that do not match, labels that are not integers, or a label outside 0 .. K - 1.

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
    return -_mean(jnp.where((y >= 0) & (y < z.shape[-1]), chosen, jnp.nan), counts)


def accuracy(logits: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None) -> Array:
    """Return the fraction of samples whose largest logit is at the label.

    Args:
        logits: [..., K] for K classes.
        labels: integers [...] from 0 to K - 1.
        mask: as for :func:`cross_entropy`.

    Returns:
        A scalar between 0 and 1 in the dtype of ``logits``; it has no gradient. nan where a logit is nan.

    Raises:
        ValueError: as :func:`cross_entropy`.

    Example:
        >>> float(accuracy(jnp.array([[0.0, 2.0], [3.0, 1.0]]), jnp.array([1, 1])))
        0.5
    """
    z, labels, counts = _checked(logits, labels, mask)
    right = (jnp.argmax(z, axis=-1).astype(labels.dtype) == labels).astype(z.dtype)
    # The largest of numbers that are none is none.
    return _mean(jnp.where(jnp.isnan(z).any(axis=-1), jnp.nan, right), counts)


def _mean(x: Array, counts: Array | None) -> Array:
    """Average what counts."""
    return jnp.mean(x) if counts is None else jnp.sum(jnp.where(counts, x, 0.0)) / jnp.sum(counts, dtype=x.dtype)


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


def class_counts(labels: Array, num_classes: int) -> np.ndarray:
    """Count the samples of each class, and refuse labels that a training would choke on or learn nothing from.

    Call it on the training labels, and on the held-out ones, before a training.

    Args:
        labels: integers of any shape, from 0 to ``num_classes`` - 1.
        num_classes: K.

    Returns:
        The number of samples of each class, [K].

    Raises:
        ValueError: for labels that are not integers, a label outside 0 .. K - 1, or a class without a sample.

    Example:
        >>> class_counts(jnp.array([0, 2, 1, 2]), 3).tolist()
        [1, 1, 2]
    """
    values, num_classes = np.asarray(integers("labels", labels)), whole("num_classes", num_classes, 1)
    rule = f"labels must lie between 0 and {num_classes - 1}"
    require((values >= 0) & (values < num_classes), "labels", values, "", rule)
    counts = np.bincount(values.ravel(), minlength=num_classes)
    empty = np.flatnonzero(counts == 0)
    if empty.size:
        more = f" (and {empty.size - 1} others)" if empty.size > 1 else ""
        raise ValueError(
            f"class {empty[0]}{more} of 0 to {num_classes - 1} has no sample: every class needs at least one; look at "
            "how the samples were split"
        )
    return counts
