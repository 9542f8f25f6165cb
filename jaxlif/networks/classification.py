"""Classification: cross-entropy and accuracy of readouts."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.neurons.checks import concrete, require


def cross_entropy(logits: Array, labels: Array) -> Array:
    r"""Average :math:`-\log \mathrm{softmax}(z)_{label}` over the samples.

    A readout becomes logits by its mean or its maximum over time, as in ``output.output.v.mean(axis=0)``.

    Args:
        logits: z [..., K] for K classes.
        labels: integers [...] from 0 to K - 1.

    Returns:
        A scalar in the dtype of ``logits``, nats; under a trace nan for a label outside 0 .. K - 1.

    Raises:
        ValueError: for shapes that do not match, labels that are not integers, or a label outside 0 .. K - 1.

    Example:
        >>> round(float(cross_entropy(jnp.zeros((2, 4)), jnp.array([0, 3]))), 6)
        1.386294
    """
    _check(logits, labels)
    labels = jnp.asarray(labels)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], axis=-1)[..., 0]
    # A negative label would count from the end.
    return -jnp.mean(jnp.where((labels >= 0) & (labels < logits.shape[-1]), chosen, jnp.nan))


def accuracy(logits: Array, labels: Array) -> Array:
    """Return the fraction of samples whose largest logit is at the label.

    Args:
        logits: [..., K] for K classes.
        labels: integers [...] from 0 to K - 1.

    Returns:
        A scalar between 0 and 1 in the dtype of ``logits``; it has no gradient.

    Raises:
        ValueError: as :func:`cross_entropy`.

    Example:
        >>> float(accuracy(jnp.array([[0.0, 2.0], [3.0, 1.0]]), jnp.array([1, 1])))
        0.5
    """
    _check(logits, labels)
    return jnp.mean((jnp.argmax(logits, axis=-1) == labels).astype(logits.dtype))


def _check(logits: Array, labels: Array) -> None:
    if jnp.shape(logits)[:-1] != jnp.shape(labels):
        shapes = f"logits {list(jnp.shape(logits))}, labels {list(jnp.shape(labels))}"
        raise ValueError(f"{shapes}: logits must have the labels' shape and one axis of classes after it")
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise ValueError(f"labels are {jnp.result_type(labels)}: labels must be integers")
    if concrete(labels):
        classes = jnp.shape(logits)[-1]
        ok = (np.asarray(labels) >= 0) & (np.asarray(labels) < classes)
        require(ok, "labels", labels, "", f"labels must lie between 0 and {classes - 1}")


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
    values = np.asarray(labels)
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"labels are {values.dtype}: labels must be integers")
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
