"""Bounds decide what is free, and map it to coordinates without bounds.

A name in the bounds is free, every other leaf is fixed and never enters the optimiser. A finite interval becomes a
logit, a half line a logarithm, the real line the identity. Nothing is ever clipped: a clipped parameter has a dead
gradient.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jaxlif.checks import check_params, single
from jaxlif.compiled import compiled

REAL = (-math.inf, math.inf)

Bounds = Mapping[str, tuple[float, float]]

# What parameters are called in words, and their units.
STANDARD_NAMES = {
    "tau_m": ("membrane time constant", "ms"),
    "r_m": ("membrane resistance", "GΩ"),
    "v_rest": ("resting potential", "mV"),
    "v_th": ("spike threshold", "mV"),
    "v_reset": ("reset potential", "mV"),
    "t_ref": ("absolute refractory period", "ms"),
    "eta": ("jump of spike-triggered current", "pA"),
    "tau_eta": ("time constant of spike-triggered current", "ms"),
    "gamma": ("jump of threshold at a spike", "mV"),
    "tau_gamma": ("time constant of threshold jump", "ms"),
    "a": ("subthreshold adaptation", "nS"),
    "tau_a": ("time constant of subthreshold adaptation", "ms"),
    "coupling.b": ("coupling of threshold to voltage", ""),
    "coupling.tau": ("time constant of that coupling", "ms"),
    "coupling.v_i": ("voltage from which the threshold follows", "mV"),
    "coupling.k": ("width of that bend", "mV"),
    "mechanisms.a": ("conductance of current through the membrane", "nS"),
    "mechanisms.tau": ("time constant of that current", "ms"),
    "mechanisms.v_i": ("voltage from which it opens", "mV"),
    "mechanisms.k": ("width of that bend", "mV"),
    "delta_v": ("width of escape noise", "mV"),
    "lambda_0": ("escape rate at threshold", "1/ms"),
}


@dataclass(frozen=True)
class Interval:
    r"""An open interval (a, b), either end infinite, and its map to the real line: :math:`\log\frac{x - a}{b - x}`, for
    half lines :math:`\log(x - a)` and :math:`-\log(b - x)`.
    """

    low: float
    high: float

    def to_free(self, x: Array) -> Array:
        """Map a value inside the interval to the real line."""
        if math.isinf(self.low) and math.isinf(self.high):
            return x
        if math.isinf(self.high):
            return jnp.log(x - self.low)
        if math.isinf(self.low):
            return -jnp.log(self.high - x)
        return jnp.log(x - self.low) - jnp.log(self.high - x)

    def to_value(self, z: Array) -> Array:
        """Map a real number to a value inside the interval."""
        if math.isinf(self.low) and math.isinf(self.high):
            return z
        if math.isinf(self.high):
            return self.low + jnp.exp(z)
        if math.isinf(self.low):
            return self.high - jnp.exp(-z)
        # From the nearer end: exact there, never past it by rounding, and with a gradient that does not round to 0.
        width = self.high - self.low
        return jnp.where(z < 0, self.low + width * jax.nn.sigmoid(z), self.high - width * jax.nn.sigmoid(-z))


@dataclass(frozen=True)
class Coordinates:
    """The free leaves of a pytree of parameters, by dotted name, each with its interval: a value that can be hashed."""

    free: tuple[tuple[str, Interval], ...]

    def to_free(self, params: PyTree) -> dict[str, Array]:
        """Return the free coordinates of ``params``, by name."""
        leaves = named_leaves(params)
        free: dict[str, Array] = _mapped(self, "to_free", {name: _floating(leaves[name]) for name, _ in self.free})
        return free

    def to_params(self, free: dict[str, Array], params: PyTree) -> Any:
        """Return ``params`` with its free leaves replaced by the values at ``free``."""
        values = _mapped(self, "to_value", {name: free[name] for name, _ in self.free})
        return jax.tree_util.tree_map_with_path(lambda path, leaf: values.get(_name(path), leaf), params)


@compiled(values=2, keep=64)
def _mapped(chosen: Coordinates, way: str, values: dict[str, Array]) -> dict[str, Array]:
    """Map all values as one program: outside of jit, each of them would be compiled operation by operation."""
    return {name: getattr(interval, way)(values[name]) for name, interval in chosen.free}


def coordinates(params: PyTree, bounds: Bounds) -> Coordinates:
    """Resolve bounds against parameters, whose leaves have dotted names such as ``0.neuron.tau_m``; check the start.

    Each free name has its (low, high) in the parameter's unit, :data:`REAL` for no bound. It may be a shell pattern,
    such as ``*.tau_m``; a full name takes precedence over a pattern.

    Example:
        >>> from jaxlif import LIFParams
        >>> [name for name, _ in coordinates(LIFParams(), {"v_*": (-90.0, -40.0)}).free]
        ['v_rest', 'v_th', 'v_reset']
    """
    leaves = named_leaves(params)
    if not isinstance(bounds, Mapping) or not all(isinstance(name, str) for name in bounds):
        raise ValueError(f"bounds are {type(bounds).__name__}: bounds must be a dict, name: (low, high)")
    if not bounds:
        raise ValueError("bounds are empty, so that nothing is free: name at least one parameter, REAL for no bound")
    chosen = _resolve(tuple(leaves), bounds)
    for name, interval in chosen.items():
        _require_inside(name, leaves[name], interval)
    check_params(params)
    return Coordinates(tuple((name, chosen[name]) for name in leaves if name in chosen))


def named_leaves(params: PyTree) -> dict[str, Any]:
    """Return the leaves of a pytree by their dotted names, in its order."""
    paths, _ = jax.tree_util.tree_flatten_with_path(params)
    return {_name(path): leaf for path, leaf in paths}


def standard_name(parameter: str) -> tuple[str, str]:
    """Return what a parameter is called in words, and its unit.

    Example:
        >>> standard_name("eta.0")
        ('jump of spike-triggered current 1', 'pA')
    """
    if parameter in STANDARD_NAMES:
        return STANDARD_NAMES[parameter]
    base, _, last = parameter.rpartition(".")
    if base.startswith("mechanisms."):  # a user's own has no entry
        words, unit = STANDARD_NAMES.get(f"mechanisms.{last}", (f"{last} of mechanism", ""))
        return f"{words} {int(base.partition('.')[2]) + 1}", unit
    words, unit = STANDARD_NAMES[base]
    return f"{words} {int(last) + 1}", unit


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _resolve(names: tuple[str, ...], bounds: Bounds) -> dict[str, Interval]:
    chosen: dict[str, Interval] = {}
    # Patterns first, so that a full name overrides them.
    for pattern in sorted(bounds, key=lambda p: p in names):
        matches = [name for name in names if name == pattern or fnmatchcase(name, pattern)]
        if not matches:
            raise ValueError(f"bounds name {pattern!r}, which is no parameter; the parameters are {', '.join(names)}")
        interval = checked_interval(pattern, bounds[pattern])
        clash = [name for name in matches if name not in bounds and chosen.get(name, interval) != interval]
        if clash:
            raise ValueError(f"bounds name {clash[0]!r} by two patterns with different intervals: keep one of them")
        chosen.update(dict.fromkeys(matches, interval))
    return chosen


def checked_interval(name: str, bound: Any) -> Interval:
    """Return a pair of bounds as an interval; what is none is refused."""
    try:
        low, high = map(float, bound)
    except (TypeError, ValueError) as error:
        raise ValueError(f"bounds[{name!r}] = {bound!r}: bounds must be a pair (low, high) of numbers") from error
    if not low < high:
        raise ValueError(f"bounds[{name!r}] = {bound!r}: low must be less than high")
    return Interval(low, high)


def _require_inside(name: str, leaf: Any, interval: Interval) -> None:
    if isinstance(leaf, jax.core.Tracer):
        return
    kind = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
    if not (isinstance(leaf, float | int) or jnp.issubdtype(kind, jnp.floating)):
        raise ValueError(f"{name} has dtype {kind}: only floating parameters can be free")
    value = np.asarray(leaf)
    outside = value[~((value > interval.low) & (value < interval.high))]
    if outside.size:
        raise ValueError(
            f"{name} = {outside.flat[0]:g}: the start must lie inside its bounds ({interval.low:g}, {interval.high:g})"
        )


def _floating(leaf: Any) -> Array:
    # An explicit dtype: a weakly typed start would make the compiled loop compile again for its own result.
    kind = jnp.result_type(leaf if hasattr(leaf, "dtype") else float)
    return jnp.asarray(single(jnp.asarray(leaf, kind)))  # steps of half precision round to none
