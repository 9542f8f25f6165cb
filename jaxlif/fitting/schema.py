"""What a fit.json may hold: it is an input like any other, and what is not as it was written is refused by its name.

Apart from what writes it, so that pydantic is loaded only where a fit is read.
"""

import json
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator
from pydantic import NonNegativeFloat as NotNegative
from pydantic import NonNegativeInt as Count
from pydantic import PositiveFloat as Positive
from pydantic import PositiveInt as Number

from jaxlif.fitting.documents import FORMAT

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

Pair = tuple[float, float]
Row = Annotated[list[float], Field(min_length=1)]
Checksum = Annotated[int, Field(ge=0, lt=2**32)]


class _Part(BaseModel):
    model_config = _STRICT


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
    correlations: list[Row]
    covariance: list[Row]
    information_voltage: list[Row]
    information_spikes: list[Row]
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
    model: Literal["lif", "gif", "adaptive", "passive"]
    protocol: Literal["steps", "fluctuating", "rates"]
    parameters: dict[str, _Parameter]
    scores: dict[str, dict[str, int | float | None]]
    train_ms: Pair
    spike_rule: Any
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
        if not isinstance(self.data, _RecordingData):
            _require(self.protocol == "rates", f'protocol = "{self.protocol}": data lack the recording\'s shape')
        sweeps = self.data.sweeps if isinstance(self.data, _RecordingData) else 0
        numbers = [n for electrode in self.electrodes for n in electrode.sweeps]
        _require(len(set(numbers)) == len(numbers), "electrodes share a sweep")
        for name, found in (("electrodes", numbers), ("held_out_sweeps", self.held_out_sweeps)):
            _require(max(found, default=-1) < sweeps, f"{name} name sweep {max(found, default=0)}: there are {sweeps}")
        if isinstance(self.data, _RecordingData):
            count = len(self.data.sweep_crc32)
            _require(count == sweeps, f"data.sweep_crc32 has {count} checksums: there are {sweeps} sweeps")
        if self.sweep_terms is not None:
            lengths = {len(self.sweep_terms.offset_mV), len(self.sweep_terms.gain)}
            _require(lengths == {sweeps}, f"sweep_terms have {sorted(lengths)} sweeps: there are {sweeps}")
        return self

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        first, last = self.train_ms
        _require(first <= last, f"train_ms = {first:g} to {last:g}: the window ends before it starts")
        kinds = {"lif": "plain", "passive": "passive"}
        kind = "adaptive" if "delta_v" in self.parameters else "plain" if "v_th" in self.parameters else "passive"
        fits = kind == kinds.get(self.model, "adaptive")
        _require(fits, f'model = "{self.model}": parameters are those of another model')
        unknown = [name for name in self.undetermined if name not in self.parameters]
        _require(not unknown, f"undetermined names {unknown}, which are no parameters")
        if self.uncertainty is not None:
            adaptive = self.model in ("gif", "adaptive")
            _require(adaptive, f'uncertainty belongs to an adaptive model, not to "{self.model}"')
            unknown = [name for name in self.uncertainty.names if name not in self.parameters]
            _require(not unknown, f"uncertainty names {unknown}, which are no parameters")
        columns = [x for name, x in self.f_i_curve.items() if name.endswith(("_pA", "_Hz"))]
        _require(len({len(column) for column in columns}) <= 1, "f_i_curve has columns of unequal length")
        return self


def _require(ok: bool, rule: str) -> None:
    if not ok:
        raise ValueError(rule)


def checked_document(text: bytes, **kinds: type) -> dict[str, Any]:
    """Return what a fit.json holds, or raise ValueError naming the field that is not as it must be.

    Args:
        text: the file.
        kinds: the dataclasses of the fields that hold one.
    """
    fields: dict[str, Any] = {name: (kind, ...) for name, kind in kinds.items()}
    try:
        found = create_model("Fit", __base__=_Fit, **fields).model_validate_json(text)
    except ValidationError as error:
        raise ValueError(_line(error, text)) from error
    if found.format != FORMAT:
        raise ValueError(f'format = "{found.format}": this version of jaxlif reads "{FORMAT}"')
    return json.loads(text)


def _line(error: ValidationError, text: bytes | str) -> str:
    """Return the first fault in one line; branches of a union, which are no keys of the file, are left out."""
    first = error.errors()[0]
    rule = " ".join(first["msg"].removeprefix("Value error, ").split())
    if first["type"] == "json_invalid":
        return rule
    node: Any = json.loads(text)
    keys: list[str] = []
    for key in first["loc"]:
        try:
            node = node[key]
        except (KeyError, IndexError, TypeError):
            keys += [str(key)] * (first["type"] == "missing" and key == first["loc"][-1])
        else:
            keys.append(str(key))
    where, value = ".".join(keys) or "the file", " ".join(repr(first["input"]).split())
    if first["type"] in ("value_error", "missing"):
        return f"{where}: {rule[:1].lower()}{rule[1:]}"
    return f"{where} = {value[:57] + '...' if len(value) > 60 else value}: {rule[:1].lower()}{rule[1:]}"
