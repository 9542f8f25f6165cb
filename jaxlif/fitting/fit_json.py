"""A fit as JSON and back.

A fit.json is an input like any other: what is not as it was written is refused by its name. Pydantic checks it, and is
loaded only where a fit is written or read.
"""

import json
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic import NonNegativeFloat as NotNegative
from pydantic import NonNegativeInt as Count
from pydantic import PositiveFloat as Positive
from pydantic import PositiveInt as Number

from jaxlif.fitting.bounds import named_leaves
from jaxlif.fitting.data import Drift, Stimulation, Uncertainty
from jaxlif.fitting.extrapolation import Regime
from jaxlif.fitting.names import standard_name
from jaxlif.neurons.adaptive import AdaptiveLIFParams, VoltageCoupling
from jaxlif.neurons.leaky import LeakyParams
from jaxlif.neurons.lif import LIFParams
from jaxlif.recordings import Electrode, SpikeRule

FORMAT = "jaxlif fit 1"
OLD_NAMES = {"adaptive": "deterministic-gif"}
PLAIN = {  # fields of a fit that are in its file as they are, and their names there
    "protocol": "protocol",
    "scores": "scores",
    "window": "train_ms",
    "spike_cut": "spike_cut_ms",
    "data": "data",
    "seed": "seed",
    "warnings": "warnings",
    "curve": "f_i_curve",
    "held_out": "held_out_sweeps",
    "rest": "resting_potential",
    "bits_per_spike": "bits_per_spike",
    "undetermined": "undetermined",
}

_F = TypeVar("_F")
Pair = tuple[float, float]
Row = Annotated[list[float], Field(min_length=1)]
Square = list[Row]
Checksum = Annotated[int, Field(ge=0, lt=2**32)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class _Parameter(_Part):
    value: float
    unit: str
    bounds: Pair | None
    interval_95: Pair | None
    standard_name: str

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name, pair in (("bounds", self.bounds), ("interval_95", self.interval_95)):
            _require(pair is None or pair[0] <= pair[1], f"{name} = {pair}: the first must not be above the second")
        inside = self.bounds is None or self.bounds[0] <= self.value <= self.bounds[1]
        _require(inside, f"value = {self.value:g} {self.unit} lies outside its bounds {self.bounds}")
        return self


class _Data(_Part):
    name: str
    sha256: str
    corrections: dict[str, int | float | str] = {}


class _RecordingData(_Data):
    corrections: dict[str, int | float | str]
    current_source: str
    current_sampled: bool
    dt_ms: Positive
    sweeps: Number
    samples: Number
    sweep_crc32: list[Checksum]


class _Electrode(_Part):
    sweeps: Annotated[list[Count], Field(min_length=1)]
    resistance_GOhm: float
    source: Literal["electrode trace", "recording", "given"]
    dt_ms: Positive
    kernel_GOhm: Row


class _Terms(_Part):
    offset_mV: Row
    gain: Row


class _Regime(_Part):
    stimulus: str
    mean_pA: float
    sd_pA: NotNegative
    rate_Hz: NotNegative


class _Stimulus(_Part):
    mean_pA: float
    sd_pA: NotNegative
    tau_ms: NotNegative
    duration_ms: Positive


class _Uncertainty(_Part):
    names: Annotated[list[str], Field(min_length=1)]
    correlations: Square
    covariance: Square
    information_voltage: Square
    information_spikes: Square
    dispersion_voltage: NotNegative
    dispersion_spikes: NotNegative
    voltage_error_mV: NotNegative
    stimulus: _Stimulus

    @model_validator(mode="after")
    def _matrices(self) -> Self:
        size = len(self.names)
        _require(len(set(self.names)) == size, f"names = {self.names}: a name occurs twice")
        for name in ("correlations", "covariance", "information_voltage", "information_spikes"):
            rows = getattr(self, name)
            shape = len(rows), *sorted({len(row) for row in rows})
            _require(shape == (size, size), f"{name} is {' x '.join(map(str, shape))}, names are {size}")
            matrix = np.array(rows)
            _require(np.allclose(matrix, matrix.T, rtol=1e-4), f"{name} is not symmetric")
        _require(bool((np.diag(self.covariance) > 0).all()), "covariance has a variance that is not positive")
        return self


class _Fit(_Part):
    format: str
    model: Literal["lif", "gif", "deterministic-gif", "adaptive", "passive"]
    protocol: Literal["steps", "fluctuating", "rates"]
    parameters: dict[str, _Parameter]
    scores: dict[str, dict[str, int | float | None]]
    train_ms: Pair
    spike_rule: SpikeRule
    spike_cut_ms: tuple[NotNegative, NotNegative]
    data: _RecordingData | _Data
    seed: Count
    warnings: list[str]
    f_i_curve: dict[str, list[float]]
    electrodes: list[_Electrode]
    held_out_sweeps: list[Count]
    resting_potential: Literal["measured", "fitted"]
    sweep_terms: _Terms | None
    regimes: list[_Regime]
    bits_per_spike: float | None
    undetermined: list[str]
    uncertainty: _Uncertainty | None
    scored_parameters: dict[str, float] | None
    versions: dict[str, str]

    @model_validator(mode="after")
    def _one_recording(self) -> Self:
        data = self.data if isinstance(self.data, _RecordingData) else None
        _require(bool(data) or self.protocol == "rates", f'protocol = "{self.protocol}": data lack their recording')
        sweeps = data.sweeps if data else 0
        numbers = [n for electrode in self.electrodes for n in electrode.sweeps]
        _require(len(set(numbers)) == len(numbers), "electrodes share a sweep")
        for name, found in (("electrodes", numbers), ("held_out_sweeps", self.held_out_sweeps)):
            _require(max(found, default=-1) < sweeps, f"{name} name sweep {max(found, default=0)}: there are {sweeps}")
        count = len(data.sweep_crc32) if data else 0
        _require(count == sweeps, f"data.sweep_crc32 has {count} checksums: there are {sweeps} sweeps")
        if self.sweep_terms is not None:
            lengths = {len(self.sweep_terms.offset_mV), len(self.sweep_terms.gain)}
            _require(lengths == {sweeps}, f"sweep_terms have {sorted(lengths)} sweeps: there are {sweeps}")
        return self

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        first, last = self.train_ms
        _require(first <= last, f"train_ms = {first:g} to {last:g}: the window ends before it starts")
        kind = "adaptive" if "delta_v" in self.parameters else "lif" if "v_th" in self.parameters else "passive"
        own = kind if kind == self.model or (kind == "adaptive" and self.model not in ("lif", "passive")) else None
        _require(own is not None, f'model = "{self.model}": parameters are those of another model')
        told = {"undetermined": self.undetermined, "uncertainty": self.uncertainty.names if self.uncertainty else []}
        for field, names in told.items():
            unknown = [name for name in names if name not in self.parameters]
            _require(not unknown, f"{field} names {unknown}, which are no parameters")
        alone = kind == "adaptive" or self.uncertainty is None
        _require(alone, f'uncertainty is of adaptive neurons, not of "{self.model}"')
        columns = [x for name, x in self.f_i_curve.items() if name.endswith(("_pA", "_Hz"))]
        _require(len({len(column) for column in columns}) <= 1, "f_i_curve has columns of unequal length")
        return self


def _require(ok: bool, rule: str) -> None:
    if not ok:
        raise ValueError(rule)


def written(fit: Any) -> str:
    """Return a fit as JSON."""
    return json.dumps(_document(fit), indent=2, ensure_ascii=False, allow_nan=False)


def _parameters(fit: Any) -> dict[str, dict[str, Any]]:
    rows = {}
    for name, value in named_leaves(fit.params).items():
        words, unit = standard_name(name)
        rows[name] = {"value": value, "unit": unit, "bounds": fit.bounds.get(name)}
        rows[name] |= {"interval_95": fit.intervals.get(name), "standard_name": words}
    return rows


def _document(fit: Any) -> dict[str, Any]:
    drift, known = fit.drift, fit.uncertainty
    packages = ("jaxlif", "jax", "jaxlib", "optax", "numpy")
    return {
        "format": FORMAT,
        "model": fit.model,
        "parameters": _parameters(fit),
        **{key: getattr(fit, name) for name, key in PLAIN.items()},
        "spike_rule": vars(fit.spike_rule),
        "electrodes": [
            {"sweeps": sweeps, "resistance_GOhm": e.resistance, "source": e.source, "dt_ms": e.dt}
            | {"kernel_GOhm": e.kernel.tolist()}
            for sweeps, e in fit.electrodes
        ],
        "sweep_terms": drift and {"offset_mV": drift.offset.tolist(), "gain": drift.gain.tolist()},
        "regimes": [vars(regime) for regime in fit.regimes],
        "uncertainty": known and _known(known),
        "scored_parameters": fit.scored and named_leaves(fit.scored),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
    }


def _known(known: Uncertainty) -> dict[str, Any]:
    """Return matrices over the names, in free coordinates; the correlations again follow from the covariance."""
    voltage, spikes = known.information.tolist()
    return {
        "names": known.names,
        "correlations": known.correlations.round(4).tolist(),
        "covariance": known.covariance.tolist(),
        "information_voltage": voltage,
        "information_spikes": spikes,
        "dispersion_voltage": known.dispersion[0],
        "dispersion_spikes": known.dispersion[1],
        "voltage_error_mV": known.voltage_error,
        "stimulus": dict(zip(_Stimulus.model_fields, known.stimulus, strict=True)),
    }


def restored(text: bytes, make: Callable[..., _F]) -> _F:
    """Make the fit that a file holds of its fields, or raise ValueError naming what is not as it must be."""
    try:
        document = _Fit.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(_line(error, text)) from error
    if document.format != FORMAT:
        raise ValueError(f'format = "{document.format}": this version of jaxlif reads "{FORMAT}"')
    found, read = _fields(document), json.loads(text)
    for neuron in (found["params"], found["scored"]):
        if neuron is not None:
            neuron.check()
    fit = make(**found)
    kept = {"versions": read["versions"], "model": OLD_NAMES.get(read["model"], read["model"])}
    _require_same(read | {"model": kept["model"]}, json.loads(json.dumps(_document(fit))) | kept)
    return fit


def _fields(document: _Fit) -> dict[str, Any]:
    rows, terms, known = document.parameters, document.sweep_terms, document.uncertainty
    intervals = {name: row.interval_95 for name, row in rows.items() if row.interval_95}
    scored = document.scored_parameters
    plain = {name: getattr(document, key) for name, key in PLAIN.items()}
    return {name: tuple(x) if isinstance(x, list) else x for name, x in plain.items()} | {
        "model": OLD_NAMES.get(document.model, document.model),
        "params": _params({name: row.value for name, row in rows.items()}),
        "scored": None if scored is None else _params(scored),
        "bounds": {name: row.bounds for name, row in rows.items() if row.bounds},
        "intervals": intervals,
        "spike_rule": document.spike_rule,
        "data": document.data.model_dump(exclude_unset=True),
        "electrodes": tuple(
            (tuple(e.sweeps), Electrode(np.array(e.kernel_GOhm, float), e.dt_ms, e.source)) for e in document.electrodes
        ),
        "drift": None if terms is None else Drift(np.array(terms.offset_mV, float), np.array(terms.gain, float)),
        "regimes": tuple(Regime(**regime.model_dump()) for regime in document.regimes),
        "uncertainty": None if known is None else _uncertainty(known, intervals),
    }


def _uncertainty(known: _Uncertainty, intervals: Mapping[str, Pair]) -> Uncertainty:
    return Uncertainty(
        names=tuple(known.names),
        intervals=dict(intervals),
        covariance=np.array(known.covariance, float),
        information=np.array([known.information_voltage, known.information_spikes], float),
        dispersion=(known.dispersion_voltage, known.dispersion_spikes),
        voltage_error=known.voltage_error_mV,
        notes=(),
        stimulus=Stimulation(*known.stimulus.model_dump().values()),
    )


def _params(values: Mapping[str, float]) -> LIFParams | LeakyParams:
    """Put values with dotted names back into parameters."""
    if "v_th" not in values:
        return LeakyParams(**values)
    if "delta_v" not in values:
        return LIFParams(**values)
    coupling = {name.removeprefix("coupling."): x for name, x in values.items() if name.startswith("coupling.")}
    terms: dict[str, Any] = {
        kind: tuple(values[name] for name in values if name.startswith(f"{kind}."))
        for kind in ("eta", "tau_eta", "gamma", "tau_gamma", "a", "tau_a")
    }
    plain: dict[str, Any] = {name: x for name, x in values.items() if "." not in name}
    return AdaptiveLIFParams(**plain, **terms, coupling=VoltageCoupling(**coupling) if coupling else None)


def _require_same(read: Any, again: Any, where: str = "") -> None:
    """Refuse a document that a fit would not write again as it is: something in it had no effect."""
    if isinstance(read, dict) and isinstance(again, dict):
        lacking, unknown = sorted(again.keys() - read.keys()), sorted(read.keys() - again.keys())
        rule = f"{where or 'the file'} lacks {lacking} and has {unknown}, which nothing reads"
        _require(not (lacking or unknown), rule)
        for key in read:
            _require_same(read[key], again[key], f"{where}.{key}".strip("."))
    else:
        _require(read == again, f"{where} = {str(read)[:60]}: the rest of the file says {str(again)[:60]}")


def _line(error: ValidationError, text: bytes) -> str:
    """Return the first fault in one line; branches of a union, which are no keys of the file, are left out."""
    first = error.errors()[0]
    rule = " ".join(first["msg"].removeprefix("Value error, ").split())
    if first["type"] == "json_invalid":
        return rule
    node, keys = json.loads(text), []
    for key in first["loc"]:
        there = key in node if isinstance(node, dict) else isinstance(node, list) and key in range(len(node))
        if there or (first["type"] == "missing" and key == first["loc"][-1]):
            keys.append(str(key))
        node = node[key] if there else node
    value = " ".join(repr(first["input"]).split())
    shown = "" if first["type"] in ("value_error", "missing") else f" = {value[:57] + '...' * (len(value) > 60)}"
    return f"{'.'.join(keys) or 'the file'}{shown}: {rule[:1].lower()}{rule[1:]}"
