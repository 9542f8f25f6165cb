"""Which input reaches which output, drawn at random, and the weights of what is connected."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.checks import floats, number, numbers, random_key, require
from jaxlif.networks.layers import _require_sizes
from jaxlif.networks.sparse import SparseParams


def from_dense(weight: Array) -> SparseParams:
    """Return the synapses of a weight [num_in, num_out]: its entries that are not 0.

    Args:
        weight: [num_in, num_out].

    Raises:
        ValueError: for a weight that is no matrix of finite numbers.

    Example:
        >>> from_dense(jnp.array([[0.0, 2.0], [3.0, 4.0]])).target.tolist()
        [[1, 2], [0, 1]]
    """
    floats("weight", weight, (None, None), "[num_in, num_out]")
    padded = np.pad(np.asarray(weight), ((0, 0), (0, 1)))
    target = _rows([np.flatnonzero(row) for row in padded], padded.shape[1] - 1)
    return SparseParams(weight=jnp.asarray(np.take_along_axis(padded, target, axis=1)), target=jnp.asarray(target))


def fixed_in_degree(
    key: Array, num_in: int, num_out: int, in_degree: int, *, self_connections: bool = True
) -> np.ndarray:
    r"""Give every output the same number of inputs, all different, drawn evenly.

    Args:
        key: random key.
        num_in: number of inputs.
        num_out: number of outputs.
        in_degree: inputs of each output.
        self_connections: whether input i may reach output i; False for neurons that do not excite themselves.

    Returns:
        Targets [num_in, K] as :class:`SparseParams` takes them; K is the largest number that any input reaches.

    Raises:
        ValueError: for a size below 1, or more inputs than there are.

    Example:
        >>> target = fixed_in_degree(jax.random.key(0), 100, 50, 10)
        >>> np.bincount(target[target < 50]).tolist() == [10] * 50
        True

    Source: Brunel 2000, doi:10.1023/A:1008925309027 (networks with a fixed in-degree).
    """
    _require_sizes(num_in=num_in, num_out=num_out, in_degree=in_degree)
    most = num_in - (not self_connections)
    if in_degree > most:
        raise ValueError(f"in_degree = {in_degree}: in_degree must not exceed the {most} inputs that there are")
    rng = _generator(key)
    # An output beyond the inputs has none of its own to leave out.
    own = [j if not self_connections and j < num_in else None for j in range(num_out)]
    sources = np.stack([_draw(rng, num_in, in_degree, j) for j in own])
    order = np.argsort(sources.ravel(), kind="stable")  # by source, and of each the targets in order
    target = np.repeat(np.arange(num_out), in_degree)[order]
    cuts = np.cumsum(np.bincount(sources.ravel(), minlength=num_in))[:-1]
    return _rows(np.split(target, cuts), num_out)


def pairwise(key: Array, num_in: int, num_out: int, probability: float, *, self_connections: bool = True) -> np.ndarray:
    r"""Connect every input with every output with the same probability, each pair on its own.

    Args:
        key: random key.
        num_in: number of inputs.
        num_out: number of outputs.
        probability: of a synapse, above 0 and up to 1.
        self_connections: whether input i may reach output i.

    Returns:
        Targets [num_in, K] as :class:`SparseParams` takes them; K is the largest number that any input reaches.

    Raises:
        ValueError: for a size below 1, or another probability.

    Example:
        >>> target = pairwise(jax.random.key(0), 100, 200, 0.1)
        >>> abs(int((target < 200).sum()) - 2000) < 4 * 2000**0.5
        True

    Source: Erdős & Rényi 1959; Vogels & Abbott 2005, doi:10.1523/JNEUROSCI.3508-05.2005.
    """
    _require_sizes(num_in=num_in, num_out=num_out)
    if not 0.0 < number("probability", probability) <= 1.0:
        raise ValueError(f"probability = {probability:g}: probability must be above 0 and at most 1")
    rng = _generator(key)
    # A binomial number of targets, drawn evenly, is the same as one draw for each pair.
    most = [num_out - (not self_connections and i < num_out) for i in range(num_in)]
    return _rows(
        [
            np.sort(_draw(rng, num_out, rng.binomial(n, probability), i if n < num_out else None))
            for i, n in enumerate(most)
        ],
        num_out,
    )


def connect(target: np.ndarray, num_out: int, weight: Array | float = 1.0) -> SparseParams:
    """Give the synapses of :func:`fixed_in_degree` or :func:`pairwise` their weights.

    Args:
        target: [num_in, K].
        num_out: number of outputs.
        weight: one for all, or one for each input, [num_in]: a neuron excites or inhibits all that it reaches.

    Returns:
        Parameters of a :class:`Sparse` in JAX's default precision.

    Raises:
        ValueError: for another shape of the weight, one that is not finite, or targets beyond ``num_out``.

    Example:
        >>> connect(np.array([[0, 1], [1, 2]]), 2, jnp.array([1.0, -4.0])).weight.tolist()
        [[1.0, 1.0], [-4.0, 0.0]]
    """
    weight, target = jnp.asarray(numbers("weight", weight), float), _targets(target, num_out)
    if weight.shape not in ((), target.shape[:1]):
        raise ValueError(
            f"weight {list(weight.shape)}: weight must be one number or one for each of {len(target)} inputs"
        )
    weight = jnp.broadcast_to(weight[..., None], target.shape) if weight.ndim else jnp.full(target.shape, weight)
    return _without_padding(weight, target, num_out)


def init_sparse(key: Array, target: np.ndarray, num_out: int, *, gain: float = 1.0) -> SparseParams:
    r"""Draw the weights of given synapses, :math:`w \sim N(0, g^2 / \bar k)`, with the mean in-degree :math:`\bar k`.

    As with :func:`init_dense`, independent inputs of mean square q give a current of variance :math:`g^2 q`.

    Args:
        key: random key.
        target: [num_in, K], of :func:`fixed_in_degree` or :func:`pairwise`.
        num_out: number of outputs.
        gain: :math:`g`, in units of the rheobase.

    Returns:
        Parameters of a :class:`Sparse` in JAX's default precision.

    Raises:
        ValueError: for no synapse at all, targets beyond ``num_out``, or a gain that is not finite.

    Example:
        >>> target = fixed_in_degree(jax.random.key(0), 1000, 1000, 25)
        >>> params = init_sparse(jax.random.key(1), target, 1000, gain=2.0)
        >>> round(float(params.weight[params.target < 1000].std() * 5.0), 1)
        2.0
    """
    target = _targets(target, num_out)
    synapses = int((target < num_out).sum())
    if synapses == 0:
        raise ValueError("target has no synapse: at least one is needed")
    scale = number("gain", gain) / math.sqrt(synapses / num_out)
    return _without_padding(scale * jax.random.normal(random_key(key), target.shape), target, num_out)


def _targets(target: Any, num_out: int) -> np.ndarray:
    """Return the targets, refusing those that a smaller ``num_out`` would drop."""
    _require_sizes(num_out=num_out)
    found = np.asarray(target)
    if found.ndim != 2 or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"target is {found.dtype} {list(found.shape)}: target must be integers [num_in, K]")
    rule = f"target must be 0 to num_out = {num_out}, which marks no synapse"
    require((found >= 0) & (found <= num_out), "target", found, "", rule)
    return found


def _without_padding(weight: Array, target: np.ndarray, num_out: int) -> SparseParams:
    """Set the weights of places without a synapse to 0."""
    ends = jnp.asarray(target, jnp.int32)
    return SparseParams(weight=jnp.where(ends < num_out, weight, 0.0), target=ends)


def _generator(key: Array) -> np.random.Generator:
    """Return NumPy's generator, seeded by a key: the shapes depend on what is drawn, which JAX does not trace."""
    return np.random.default_rng(np.asarray(jax.random.key_data(random_key(key))).ravel().tolist())


def _draw(rng: np.random.Generator, among: int, number: int, but: int | None) -> np.ndarray:
    """Draw different integers below ``among``, all but one."""
    if but is None:
        return rng.choice(among, number, replace=False, shuffle=False)
    drawn = rng.choice(among - 1, number, replace=False, shuffle=False)
    return drawn + (drawn >= but)


def _rows(rows: list[np.ndarray], num_out: int) -> np.ndarray:
    """Fill rows of different lengths up with num_out."""
    target = np.full((len(rows), max(1, *map(len, rows))), num_out, np.int32)
    for i, row in enumerate(rows):
        target[i, : len(row)] = row
    return target
