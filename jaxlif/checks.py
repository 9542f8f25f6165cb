"""What a public function is given, read at its door: numbers of the right kind and rank, values that keep their rules.

Each function returns what it was given or raises a ValueError of one line: field, value, unit, rule. Values are checked
where they are at hand and not while tracing; kinds, dtypes and shapes always.
"""

import math
import operator
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

Tracer = jax.core.Tracer
HALF = (jnp.dtype(jnp.float16), jnp.dtype(jnp.bfloat16))


def numbers(
    field: str, value: Any, unit: str = "", *, rank: int | tuple[int, ...] | None = None, finite: bool = True
) -> Any:
    """Return floating numbers as they are, a list as an array, integers and booleans as floating; refuse the rest.

    Example:
        >>> numbers("spikes", [True, False]).tolist(), numbers("dt", 1, "ms")
        ([1.0, 0.0], 1.0)
    """
    array = _array(field, value, unit)
    if rank is not None and array.ndim not in (ranks := (rank,) if isinstance(rank, int) else rank):
        wanted = "a number" if ranks == (0,) else f"an array of rank {' or '.join(map(str, ranks))}"
        raise ValueError(f"{field} has shape {array.shape}: {field} must be {wanted}{_of(unit)}")
    if finite and not isinstance(array, Tracer):
        require(np.isfinite(np.asarray(array, float)), field, array, unit, f"{field} must be finite")
    if isinstance(value, int | float):
        return float(value) if isinstance(value, int) else value  # a Python number takes the dtype of what it meets
    if jnp.issubdtype(array.dtype, np.floating):
        return array
    if isinstance(array, Tracer):
        return array.astype(jnp.result_type(float))
    return np.asarray(array).astype(jnp.result_type(float) if isinstance(array, jax.Array) else float)  # at hand still


def number(field: str, value: Any, unit: str = "") -> Any:
    """Return a finite number as it is, an integer or boolean as floating; refuse the rest."""
    return numbers(field, value, unit, rank=0)


def positive(field: str, value: Any, unit: str = "") -> Any:
    """Return a finite number above 0; refuse the rest."""
    return require_positive(field, number(field, value, unit), unit)


def not_negative(field: str, value: Any, unit: str = "") -> Any:
    """Return a finite number of 0 or more; refuse the rest."""
    return require_not_negative(field, number(field, value, unit), unit)


def floating(field: str, value: Any) -> jax.Array:
    """Return numbers as a floating JAX array, single at least, integers and booleans in its default precision."""
    array: jax.Array = single(jnp.asarray(numbers(field, value, finite=False)))
    return array


def single(x: Any) -> Any:
    """Return an array of half precision in single precision, all else as it is: sums and steps need more digits."""
    return jnp.asarray(x, jnp.float32) if jnp.result_type(x) in HALF else x


def integers(field: str, value: Any, rank: int | None = None) -> Any:
    """Return an array of whole numbers as it is, a list as an array; refuse other kinds and ranks."""
    array = value if isinstance(value, jax.Array | Tracer) else np.asarray(value)
    if not array.size and array.dtype == float:
        array = np.zeros(array.shape, int)  # a list of none has no kind
    if not jnp.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{field} are {array.dtype}: {field} must be integers")
    if rank is not None and array.ndim != rank:
        raise ValueError(f"{field} have shape {list(array.shape)}: {field} must be an array of rank {rank}")
    return array


def whole(field: str, value: Any, least: int = 0, unit: str = "") -> int:
    """Return a whole number, refuse fractions, booleans and what is less than ``least``."""
    try:
        found = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        found = None
    if found is None or found < least:
        shown = f"{_short(value)} {unit}".rstrip()
        raise ValueError(f"{field} = {shown}: {field} must be a whole number, {least} or more")
    return found


def choice(field: str, value: Any, options: tuple[Any, ...]) -> Any:
    """Return one of the options, refuse everything else."""
    if not any(type(value) is type(option) and value == option for option in options):
        *most, last = (f'"{option}"' if isinstance(option, str) else repr(option) for option in options)
        listed = f"{', '.join(most)} or {last}" if most else last
        raise ValueError(f"{field} = {_short(value)}: {field} must be {listed}")
    return value


def random_key(key: Any) -> Any:
    """Return a JAX random key, refuse all else, such as the seed itself."""
    kind: Any = getattr(key, "dtype", None)
    # An old one is two or four words, as its generator has it.
    old = kind == np.uint32 and key.shape[-1:] in ((2,), (4,))
    if not (isinstance(key, jax.Array | np.ndarray) and (old or jnp.issubdtype(kind, jax.dtypes.prng_key))):
        what = _short(key) if kind is None else f"{kind} {list(key.shape)}"
        raise ValueError(f"key = {what}: key must be a JAX random key, such as jax.random.key(0)")
    return key


def function(field: str, value: Any) -> Any:
    """Return a function, refuse what cannot be called, or be told from another by its value or identity."""
    try:
        hash(value)
    except TypeError:
        value = None
    if not callable(value):
        raise ValueError(f"{field} must be a function, or an object that can be called and hashed")
    return value


def optimiser(value: Any) -> Any:
    """Return an Optax optimiser, refuse all else."""
    if not (callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))):
        raise ValueError(f"optimizer = {_short(value)}: optimizer must be Optax's, such as optax.adam(0.01)")
    return value


def scalar(who: str, value: Any, *kinds: Any) -> None:
    """Refuse what a function returned, or its shape, unless it is one number of the kinds."""
    shape, kind = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or kind is None:
        raise ValueError(f"{who} returned {type(value).__name__}: it must be a scalar")
    if shape != () or not any(jnp.issubdtype(kind, allowed) for allowed in kinds):
        raise ValueError(f"{who} returned {kind.name} of shape {shape}: it must be a real scalar")


def arrays_of_numbers(field: str, tree: Any) -> None:
    """Refuse a pytree with a leaf that is no number, array of numbers or random key."""
    for x in jax.tree.leaves(tree):
        kind = getattr(x, "dtype", None) or np.asarray(x).dtype
        if not any(jnp.issubdtype(kind, allowed) for allowed in (np.number, np.bool_, jax.dtypes.prng_key)):
            raise ValueError(f"{field} holds {kind}: {field} must be arrays of numbers")


def input_arrays(inputs: Any) -> Any:
    """Return a tree of inputs as it is, a list of numbers as an array; refuse what is no number or is not finite."""
    if isinstance(inputs, list) and not all(isinstance(x, jax.Array | np.ndarray) for x in inputs):
        inputs = numbers("inputs", inputs)
    for x in jax.tree.leaves(inputs):
        key = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        if not isinstance(x, jax.ShapeDtypeStruct) and not key:
            array = _array("inputs", x, "")
            if not isinstance(x, Tracer) and getattr(x, "is_fully_addressable", True) and not _finite_sum(array):
                require(np.isfinite(np.asarray(array, float)), "inputs", array, "", "inputs must be finite")
    return inputs


def length(field: str, tree: Any, of: str) -> int:
    """Return the length that all arrays of a pytree have along their first axis; refuse no array, and a length of 0."""
    shapes = [jnp.shape(x) for x in jax.tree.leaves(tree)]
    if not shapes or () in shapes or len({shape[0] for shape in shapes}) > 1:
        raise ValueError(f"{field} of shapes {shapes}: all must be arrays [{of}, ...] with as many {of}")
    if not shapes[0][0]:
        raise ValueError(f"{field} of 0 {of}: at least one is needed")
    return int(shapes[0][0])


def floats(field: str, value: Any, shape: tuple[int | None, ...], axes: str) -> None:
    """Refuse what is no floating array of a shape, None for any size, or holds a number that is not finite."""
    found: Any = getattr(value, "shape", None)
    fits = found is not None and len(found) == len(shape)
    fits = fits and all(wanted in (None, n) for n, wanted in zip(found, shape, strict=True))
    if not fits or not jnp.issubdtype(value.dtype, np.floating):
        what = type(value).__name__ if found is None else f"{value.dtype.name} {list(found)}"
        raise ValueError(f"{field} is {what}: {field} must be a floating array {axes}")
    require_finite(field, value, "")


def counted(mask: Any, field: str, x: jax.Array) -> jax.Array:
    """Return where a mask, [T] or of the shape of ``x``, counts: booleans of that shape."""
    shape = np.shape(mask)
    if shape not in (x.shape[:1], x.shape):
        raise ValueError(f"{field} has shape {x.shape} and mask {shape}: they must agree, or mask be {x.shape[:1]}")
    counts = floating("mask", mask)
    require_binary("mask", counts)
    return jnp.broadcast_to(counts.astype(bool).reshape(shape + (1,) * (x.ndim - len(shape))), x.shape)


def require_sample(field: str, shape: tuple[int, ...], lowest: int = 1) -> None:
    """Refuse the shape of a batch, and of a sample without a step."""
    if not lowest <= len(shape) <= 2 or 0 in shape[:lowest]:
        rule = "it must be one sample, [T] or [T, N] with a step at least; a batch goes through jax.vmap"
        raise ValueError(f"{field} has shape {shape}: {rule}")


def require_binary(field: str, x: Any) -> None:
    """Refuse numbers other than 0 and 1."""
    if concrete(x) and not np.isin(x, (0, 1)).all():
        raise ValueError(f"{field} holds values other than 0 and 1: it must say yes or no of each step")


def require_same_shape(**arrays: Any) -> None:
    """Refuse arrays whose shapes differ: a silent broadcast is a wrong number."""
    (name, first), *others = arrays.items()
    for other, array in others:
        if jnp.shape(first) != jnp.shape(array):
            raise ValueError(f"{name} has shape {jnp.shape(first)} and {other} {jnp.shape(array)}: they must agree")


def concrete(*values: Any) -> bool:
    """Say whether all values are numbers or arrays at hand, not tracers or placeholders of a transformation."""
    at_hand = bool | int | float | np.generic | np.ndarray | jax.Array
    return all(isinstance(v, at_hand) and not isinstance(v, Tracer) for v in values)


def require(ok: Any, field: str, value: Any, unit: str, rule: str) -> None:
    """Raise ValueError naming field, first offending value, unit and rule unless ``ok`` holds everywhere."""
    if np.all(ok):
        return
    ok, value = np.broadcast_arrays(np.asarray(ok), np.asarray(value))
    index = tuple(int(i) for i in np.argwhere(~ok)[0])
    where = f"[{', '.join(map(str, index))}]" if index else ""
    raise ValueError(f"{field}{where} = {value[index]:g}{unit and f' {unit}'}: {rule}")


def require_finite(field: str, value: Any, unit: str) -> Any:
    """Return finite numbers, refuse NaN, infinity and what is no number."""
    if isinstance(value, float) and math.isfinite(value):
        return value  # what every call of `simulate` meets most
    if not isinstance(value, jax.ShapeDtypeStruct):
        _array(field, value, unit)
    if concrete(value):
        require(np.isfinite(value), field, value, unit, f"{field} must be finite")
    return value


def require_positive(field: str, value: Any, unit: str) -> Any:
    """Return finite positive numbers, refuse the rest."""
    if concrete(require_finite(field, value, unit)):
        require(np.asarray(value) > 0, field, value, unit, f"{field} must be greater than 0 {unit}")
    return value


def require_not_negative(field: str, value: Any, unit: str) -> Any:
    """Return finite numbers of 0 or more, refuse the rest."""
    if concrete(require_finite(field, value, unit)):
        require(np.asarray(value) >= 0, field, value, unit, f"{field} must be 0 {unit} or more")
    return value


def require_below(field: str, value: Any, other: str, bound: Any, unit: str) -> None:
    """Refuse ``value`` at or above ``bound``, naming both fields."""
    if concrete(value, bound):
        value, bound = np.broadcast_arrays(value, bound)
        ok = value < bound
        limit = float(bound[~ok][0]) if not ok.all() else 0.0
        require(ok, field, value, unit, f"{field} must be below {other} = {limit:g} {unit}")


def require_different(field: str, value: Any, other: str, reference: Any, unit: str) -> None:
    """Refuse ``value`` equal to ``reference``, naming both fields."""
    if concrete(value, reference):
        require(np.not_equal(value, reference), field, value, unit, f"{field} must differ from {other}")


@runtime_checkable
class Checked(Protocol):
    """Parameters with rules of their own."""

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""


RULES: dict[str, tuple[Callable[[str, Any, str], Any], str]] = {
    "tau_m": (require_positive, "ms"),
    "r_m": (require_positive, "GΩ"),
    "v_rest": (require_finite, "mV"),
    "v_th": (require_finite, "mV"),
    "v_reset": (require_finite, "mV"),
    "t_ref": (require_not_negative, "ms"),
}
PLAIN = tuple(RULES)
MEMBRANE = PLAIN[:3]
# Of exponential, adaptive and resonant neurons, which others would pass over.
MECHANISMS = ("delta_t", "a", "b", "coupling", "eta", "gamma", "mechanisms")


def check_params(params: Any) -> None:
    """Call ``check()`` on every node of a pytree of parameters that has one."""
    for node in jax.tree.leaves(params, is_leaf=lambda node: isinstance(node, Checked)):
        if isinstance(node, Checked):
            node.check()


def check_fields(params: Any, fields: tuple[str, ...] = PLAIN) -> None:
    """Check the fields of a plain neuron, or some of them, each by its own rule; those that are missing pass."""
    for field in fields:
        rule, unit = RULES[field]
        rule(field, getattr(params, field, 1.0), unit)


def require_fields(
    who: str, params: Any, fields: tuple[str, ...] = PLAIN, mechanisms: tuple[str, ...] = MECHANISMS
) -> None:
    """Refuse parameters that lack a field which somebody needs, or hold a mechanism that would be passed over."""
    found = type(params).__name__.removeprefix("_")
    for field in fields:
        if getattr(params, field, None) is None:
            raise ValueError(f"params = {found}: it has no {field}, which {who} needs")
    for field in mechanisms:
        value = getattr(params, field, None)
        if value is not None and not (isinstance(value, tuple) and not value):
            raise ValueError(f"params = {found}: {who} does not have their {field}")


def require_params(cell: Any, params: Any, kind: type, field: str = "params") -> None:
    """Refuse parameters of another kind than a cell takes."""
    if not isinstance(params, kind):
        found = type(params).__name__.removeprefix("_")
        raise ValueError(f"{field} = {found}: {type(cell).__name__} takes {kind.__name__}")


def _array(field: str, value: Any, unit: str) -> Any:
    kept = not np.ma.is_masked(value)  # NumPy would forget a mask
    with suppress(ValueError):  # rows of unequal length
        array = value if isinstance(value, jax.Array | Tracer) else np.asarray(value)
        if kept and (jnp.issubdtype(array.dtype, np.floating) or array.dtype.kind in "iub"):
            return array
    rule = f"a number or an array of numbers{_of(unit)}{'' if kept else ', none of them masked'}"
    raise ValueError(f"{field} = {_short(value)}: {field} must be {rule}")


def _finite_sum(array: Any) -> bool:
    """Say whether the sum is finite: a tenth of the time that a look at each number takes, and of the memory."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.asarray(array).sum()))


def _of(unit: str) -> str:
    return f", {unit}" if unit else ""


def _short(value: Any) -> str:
    line = " ".join(repr(value).split())
    return line if len(line) <= 60 else f"{line[:57]}..."
