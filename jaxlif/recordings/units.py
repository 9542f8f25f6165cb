"""The units that files are written in, the factors that take them to ms, pA and mV, and what is asked of a file."""

import re
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxlif.checks import number
from jaxlif.recordings.recording import Sweeps

_FACTORS = {
    "time": {"s": 1e3, "ms": 1.0, "us": 1e-3},
    "current": {"A": 1e12, "mA": 1e9, "uA": 1e6, "nA": 1e3, "pA": 1.0},
    "voltage": {"V": 1e3, "mV": 1.0, "uV": 1e-3},
    "rate": {"Hz": 1.0, "kHz": 1e3},
}
_SYMBOLS = {name.lower(): name for table in _FACTORS.values() for name in table} | {"sec": "s"}
_WORD = re.compile(r"(milli|micro|nano|pico|)(volt|amp)(?:ere)?s?", re.IGNORECASE)
_PREFIXES = {"milli": "m", "micro": "u", "nano": "n", "pico": "p", "": ""}


def symbol(unit: str) -> str:
    """Return a unit as its symbol, as it is where it is none of ours; case counts for M alone: there is no mega."""
    unit = unit.strip(" \0").replace("\u03bc", "u").replace("\u00b5", "u")  # two code points look like the micro sign
    if word := _WORD.fullmatch(unit):
        unit = _PREFIXES[word[1].lower()] + word[2][0].lower()
    return unit if unit.startswith("M") and len(unit) > 1 else _SYMBOLS.get(unit.lower(), unit)


def is_unit(quantity: str, unit: str) -> bool:
    """Say whether a unit is one of "time", "current", "voltage" or "rate"."""
    return symbol(unit) in _FACTORS[quantity]


def to_library_unit(quantity: str, unit: str) -> float:
    """Return the factor that takes a quantity to ms, pA, mV or Hz; a unit that it does not come in is refused."""
    if not is_unit(quantity, unit):
        raise ValueError(f"{quantity} in {unit!r}: the units known are {', '.join(_FACTORS[quantity])}")
    return _FACTORS[quantity][symbol(unit)]


@dataclass(frozen=True, kw_only=True)
class Corrections:
    r"""What a file says wrongly of its voltage and current: :math:`x \to \mathrm{gain} \cdot x + \mathrm{offset}`.

    Args:
        voltage_unit: the unit of the file's voltage, in place of the one that it states.
        voltage_gain: factor to that voltage; 0.1 for one that was stored ten times too large.
        voltage_offset: mV, added after it.
        current_unit: likewise, of the current.
        current_gain: likewise.
        current_offset: pA, likewise.

    Raises:
        ValueError: for a unit of something else, a gain of 0, or a number that is not finite.
    """

    voltage_unit: str | None = None
    voltage_gain: float = 1.0
    voltage_offset: float = 0.0
    current_unit: str | None = None
    current_gain: float = 1.0
    current_offset: float = 0.0

    def __post_init__(self) -> None:
        for quantity, unit in (("voltage", "mV"), ("current", "pA")):
            if (given := getattr(self, f"{quantity}_unit")) is not None and not is_unit(quantity, given):
                known = ", ".join(_FACTORS[quantity])
                raise ValueError(f"{quantity}_unit = {given!r}: the units known are {known}")
            if number(f"{quantity}_gain", getattr(self, f"{quantity}_gain")) == 0:
                raise ValueError(f"{quantity}_gain = 0: {quantity}_gain must be a number other than 0")
            number(f"{quantity}_offset", getattr(self, f"{quantity}_offset"), unit)

    def unit(self, quantity: str, stated: str) -> str:
        """Return the unit of "voltage" or "current": the one that was given, or else what the file states."""
        given: str | None = getattr(self, f"{quantity}_unit")
        return stated if given is None else given

    def corrected(self, quantity: str, values: np.ndarray) -> np.ndarray:
        """Return values of "voltage" in mV or "current" in pA with gain and offset."""
        gain, offset = getattr(self, f"{quantity}_gain"), getattr(self, f"{quantity}_offset")
        return values if (gain, offset) == (1.0, 0.0) else gain * np.asarray(values, np.float64) + offset

    def given(self) -> dict[str, Any]:
        """Return those that change something, by name."""
        return {name: value for name, value in asdict(self).items() if value != getattr(NO_CORRECTIONS, name)}


NO_CORRECTIONS = Corrections()


class Asked(NamedTuple):
    """What is asked of a file: which current, sweeps and channel, and what to correct in it."""

    current: str | None = None
    sweeps: Sweeps | None = None
    channel: str | None = None
    corrections: Corrections = NO_CORRECTIONS
