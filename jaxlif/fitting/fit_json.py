"""A fit as JSON and back: what is not as it was written, or does not go together, is refused by its name."""

import json
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from types import NoneType, UnionType
from typing import (
    Any,
    NamedTuple,
    NotRequired,
    TypedDict,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import numpy as np

from jaxlif.checks import choice
from jaxlif.fitting.bounds import named_leaves, standard_name
from jaxlif.fitting.verdict import Verdict
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.neurons.leaky import LeakyParams
from jaxlif.neurons.lif import LIFParams
from jaxlif.neurons.mechanisms import Mechanism, VoltageCoupling

FORMAT = "jaxlif fit 2"
PARAMS: dict[str, type[LIFParams | LeakyParams]] = {
    "lif": LIFParams,
    "gif": AdaptiveLIFParams,
    "deterministic-gif": AdaptiveLIFParams,
    "passive": LeakyParams,
}
LARGEST = sys.float_info.max

_F = TypeVar("_F")


class Row(NamedTuple):
    """A parameter in the file."""

    value: float
    unit: str
    bounds: tuple[float, float] | None
    interval_95: tuple[float, float] | None
    standard_name: str


class Source(TypedDict):
    """The data of a fit; of a table of rates the name, the checksum and the corrections alone are known."""

    name: str
    sha256: str
    corrections: NotRequired[dict[str, int | float | str]]
    current_source: NotRequired[str]
    current_sampled: NotRequired[bool]
    dt_ms: NotRequired[float]
    sweeps: NotRequired[int]
    samples: NotRequired[int]
    sweep_crc32: NotRequired[list[int]]


# Fields of a fit that are in its file otherwise, or whose values its class does not tell.
_IN_ROWS = ("params", "bounds", "intervals")
_KINDS = {
    "format": str,
    "verdict": Verdict,
    "parameters": dict[str, Row],
    "versions": dict[str, str],
    "mechanisms": list[str],
    "data": Source,
    "scores": dict[str, dict[str, int | float | None]],
    "scored": dict[str, float] | None,
}


def written(fit: Any) -> str:
    """Return a fit as JSON: its fields by their names, but its parameters in rows with bounds and intervals."""
    packages = ("jaxlif", "jax", "jaxlib", "optax", "numpy")
    document: dict[str, Any] = {"format": FORMAT, "verdict": fit.verdict, "parameters": rows_of(fit)}
    document |= {f.name: getattr(fit, f.name) for f in fields(fit) if f.name not in _IN_ROWS}
    document["scored"] = None if fit.scored is None else named_leaves(fit.scored)
    document["mechanisms"] = [type(m).__name__ for m in getattr(fit.params, "mechanisms", ())]
    document["versions"] = {"python": platform.python_version()} | {name: version(name) for name in packages}
    return json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False)


def rows_of(fit: Any) -> dict[str, Row]:
    """Return the parameters of a fit by their names."""
    rows = {}
    for name, value in named_leaves(fit.params).items():
        words, unit = standard_name(name)
        rows[name] = Row(value, unit, fit.bounds.get(name), fit.intervals.get(name), words)
    return rows


def _plain(value: Any) -> Any:
    """Return a value in lists and dicts."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if is_dataclass(value):
        return _plain({f.name: getattr(value, f.name) for f in fields(value)})
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {name: _plain(x) for name, x in value.items()}
    return [_plain(x) for x in value] if isinstance(value, list | tuple) else value


def restored(text: bytes, make: Callable[..., _F]) -> _F:
    """Make the fit that a file holds, or raise ValueError naming what is not as it must be."""
    document = json.loads(text)
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise ValueError(f"format = {found!r}: this version of jaxlif reads {FORMAT!r}")
    hints = {name: kind for name, kind in get_type_hints(make).items() if name not in _IN_ROWS}
    told = _fields(hints | _KINDS, document, "", optional=frozenset())
    rows: dict[str, Row] = told.pop("parameters")
    model, scored = choice("model", told["model"], tuple(PARAMS)), told["scored"]
    own, kinds = {name: row.value for name, row in rows.items()}, told.pop("mechanisms")
    told["params"] = _params(model, own, kinds)
    told["scored"] = None if scored is None else _params(model, scored, kinds)
    told["bounds"] = {name: row.bounds for name, row in rows.items() if row.bounds}
    told["intervals"] = {name: row.interval_95 for name, row in rows.items() if row.interval_95}
    for name in ("format", "verdict", "versions"):  # a verdict is always that of what is stored
        del told[name]
    fit = make(**told)
    if (again := rows_of(fit)) != rows:
        name = next(name for name in (*rows, *again) if rows.get(name) != again.get(name))
        raise ValueError(f"parameters.{name} = {rows.get(name)}: a fit of this model has {again.get(name)}")
    for rule, is_kept in _rules(fit).items():
        if not is_kept:
            raise ValueError(rule)
    return fit


def _params(model: str, values: Mapping[str, float], mechanisms: list[str]) -> LIFParams | LeakyParams:
    """Put values with dotted names back into the parameters of a model, checked."""
    found: dict[str, Any] = {name: x for name, x in values.items() if "." not in name}
    for base in dict.fromkeys(name.partition(".")[0] for name in values if "." in name):
        parts = {name.partition(".")[2]: x for name, x in values.items() if name.startswith(f"{base}.")}
        found[base] = tuple(parts.values()) if base not in ("coupling", "mechanisms") else parts
    try:
        if "coupling" in found:
            found["coupling"] = VoltageCoupling(**found["coupling"])
        leaves = found.pop("mechanisms", {})
        kinds = [(f"{i}.", _mechanism(name)) for i, name in enumerate(mechanisms)]
        own = [(kind, {n.removeprefix(i): x for n, x in leaves.items() if n.startswith(i)}) for i, kind in kinds]
        found |= {"mechanisms": tuple(kind(**parts) for kind, parts in own)} if own else {}
        params = PARAMS[model](**found)
    except TypeError as error:
        raise ValueError(f'model = "{model}": parameters are those of another model ({error})') from error
    params.check()
    return params


def _mechanism(name: str) -> Any:
    """Return the mechanism of a name, one of jaxlif's or of a module that the user has imported."""
    known, left = dict[str, Any](), [Mechanism]
    while left:
        kind = left.pop()
        known[kind.__name__] = kind
        left += kind.__subclasses__()
    if name not in known:
        raise ValueError(f"mechanisms = {name!r}: no mechanism of this name is known; import the module that has it")
    return known[name]


def _typed(kind: Any, node: Any, where: str) -> Any:
    """Return what JSON holds as a value of a type; what is of another is refused by its place in the file."""
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if origin in (Union, UnionType):
        own = next((k for k in inner if type(node) is k), next(k for k in inner if k is not NoneType))
        return _typed(own, node, where)
    if kind in (int, float, str, bool, NoneType):
        is_own = type(node) in ((int, kind) if kind is float else (kind,))
        if not is_own or (kind in (int, float) and not -LARGEST <= node <= LARGEST):
            raise _other(node, where, kind.__name__)
        return float(node) if kind is float else node
    is_record = is_dataclass(kind) or is_typeddict(kind) or hasattr(kind, "_fields")
    container: Any = dict if is_record or origin in (dict, Mapping) else list
    if not isinstance(node, container):
        raise _other(node, where, kind.__name__)
    if is_record:
        return kind(**_fields(get_type_hints(kind), node, f"{where}.", getattr(kind, "__optional_keys__", frozenset())))
    if origin in (dict, Mapping):
        return {name: _typed(inner[1], x, f"{where}.{name}") for name, x in node.items()}
    if origin not in (list, tuple):
        return np.array(_numbers(node, where))
    kinds = inner if origin is tuple and inner[1:] != (...,) else inner[:1] * len(node)
    if len(node) != len(kinds):
        raise _other(node, where, f"list of {len(kinds)}")
    return origin(_typed(k, x, f"{where}.{i}") for i, (k, x) in enumerate(zip(kinds, node, strict=True)))


def _fields(hints: Mapping[str, Any], node: dict[str, Any], where: str, optional: frozenset[str]) -> dict[str, Any]:
    """Return the fields of an object by their types; one that is missing or not known is refused."""
    missing, unknown = hints.keys() - node.keys() - optional, node.keys() - hints.keys()
    if missing or unknown:
        name, fault = (min(missing), "is missing") if missing else (min(unknown), "is no field of a fit")
        raise ValueError(f"{where}{name} {fault}")
    return {name: _typed(hints[name], x, f"{where}{name}") for name, x in node.items()}


def _numbers(node: Any, where: str) -> Any:
    if isinstance(node, list):
        return [_numbers(x, f"{where}.{i}") for i, x in enumerate(node)]
    return _typed(float, node, where)


def _other(node: Any, where: str, expected: str) -> ValueError:
    value = " ".join(repr(node).split())
    return ValueError(f"{where} = {value[:57]}{'...' * (len(value) > 57)}: {expected} is expected")


def _rules(fit: Any) -> dict[str, bool]:
    """Return what must hold between the fields of a fit, each with whether it does."""
    data, known, whole = fit.data, fit.uncertainty, Source.__optional_keys__ <= fit.data.keys()
    sweeps, names = data.get("sweeps", 0), list(named_leaves(fit.params))
    numbers = [n for chosen, _ in fit.electrodes for n in chosen]
    columns = {len(x) for name, x in fit.curve.items() if name.endswith(("_pA", "_Hz"))}
    positive = [data.get(name, 1) for name in ("dt_ms", "sweeps", "samples")] + [e.dt for _, e in fit.electrodes]
    not_negative = [*fit.spike_cut, fit.seed, *(x for r in fit.regimes for x in (r.sd_pA, r.rate_Hz))]
    rules = {
        f"protocol = {fit.protocol!r}": fit.protocol in ("steps", "fluctuating", "rates"),
        f"rest = {fit.rest!r}": fit.rest in ("measured", "fitted"),
        f"protocol = {fit.protocol!r}: data lack their recording": whole or fit.protocol == "rates",
        f"window = {fit.window}: it ends before it starts": fit.window[0] <= fit.window[1],
        f"dt, sweeps or samples of data or electrodes = {positive}: not positive": min(positive) > 0,
        f"spike_cut, seed, or sd_pA or rate_Hz of regimes = {not_negative}: negative": min(not_negative) >= 0,
        f"electrodes name the sweeps {numbers}: there are {sweeps}": _are_sweeps(numbers, sweeps),
        "electrodes have no kernel [lags], or no sweep": all(
            n and e.kernel.size and e.kernel.ndim == 1 for n, e in fit.electrodes
        ),
        f"held_out = {fit.held_out}: there are {sweeps} sweeps": _are_sweeps(fit.held_out, sweeps),
        f"data.sweep_crc32: there are {sweeps} sweeps": len(data.get("sweep_crc32", ())) == sweeps,
        f"undetermined = {fit.undetermined}: not all are parameters": set(fit.undetermined) <= set(names),
        "curve has columns of unequal length": len(columns) <= 1,
    }
    for _, electrode in fit.electrodes:
        sources = ("electrode trace", "recording", "given")
        rules[f"electrodes.source = {electrode.source!r}: it is none of {sources}"] = electrode.source in sources
    for name, (low, high) in fit.bounds.items():
        value = rows_of(fit)[name].value
        rules[f"parameters.{name}.value = {value:g}: outside its bounds {low:g} to {high:g}"] = low <= value <= high
    for name, (low, high) in fit.intervals.items():
        rules[f"parameters.{name}.interval_95 = {low:g} to {high:g}"] = low <= high
    if fit.drift is not None:
        shapes = fit.drift.offset.shape, fit.drift.gain.shape
        rules[f"drift has the shapes {shapes}: there are {sweeps} sweeps"] = shapes == ((sweeps,), (sweeps,))
    return rules if known is None else rules | _rules_of_uncertainty(known, names)


def _are_sweeps(numbers: Any, count: int) -> bool:
    return set(numbers) <= set(range(count)) and len(set(numbers)) == len(numbers)


def _rules_of_uncertainty(known: Any, names: list[str]) -> dict[str, bool]:
    square, scales = (len(known.names),) * 2, [*known.dispersion, known.voltage_error, known.stimulus.sd]
    own = set(known.names) <= set(names) and len(set(known.names)) == len(known.names)
    shapes = known.covariance.shape, known.information.shape
    fits = shapes == (square, (2, *square))
    matrices = [known.covariance, *known.information] if fits else []
    return {
        f"uncertainty.names = {known.names}: not all are parameters, or one occurs twice": own,
        f"uncertainty: covariance and information have the shapes {shapes}, names are {square[0]}": fits,
        "uncertainty has a matrix that is not symmetric": all(np.allclose(m, m.T, rtol=1e-4) for m in matrices),
        "uncertainty.covariance has a variance that is not positive": bool((np.diag(known.covariance) > 0).all()),
        f"uncertainty has scales {scales} that are negative": min(scales) >= 0,
    }
