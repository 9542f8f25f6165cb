"""The units that files are written in, the factors that take them to ms, pA and mV, and corrections of a file."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_FACTORS = {
    "time": {"s": 1e3, "sec": 1e3, "ms": 1.0, "us": 1e-3, "µs": 1e-3},
    "current": {"a": 1e12, "ma": 1e9, "ua": 1e6, "µa": 1e6, "na": 1e3, "pa": 1.0},
    "voltage": {"v": 1e3, "mv": 1.0, "uv": 1e-3, "µv": 1e-3},
    "rate": {"hz": 1.0, "khz": 1e3},
}
_NAMES = {"time": "s, ms, us", "current": "A, mA, uA, nA, pA", "voltage": "V, mV, uV", "rate": "Hz, kHz"}


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
        for quantity, symbol in (("voltage", "mV"), ("current", "pA")):
            unit, gain, offset = (getattr(self, f"{quantity}_{what}") for what in ("unit", "gain", "offset"))
            if unit is not None and not is_unit(quantity, unit):
                raise ValueError(f"{quantity}_unit = {unit!r}: the units known are {_NAMES[quantity]}")
            if not (np.isfinite(gain) and gain != 0):
                raise ValueError(f"{quantity}_gain = {gain}: it must be a finite number other than 0")
            if not np.isfinite(offset):
                raise ValueError(f"{quantity}_offset = {offset} {symbol}: it must be a finite number of {symbol}")

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


def is_unit(quantity: str, unit: str) -> bool:
    """Say whether ``unit`` is one of "time", "current" or "voltage".

    Example:
        >>> is_unit("current", "nA"), is_unit("current", "mV")
        (True, False)
    """
    return _normalised(unit) in _FACTORS[quantity]


def to_library_unit(quantity: str, unit: str) -> float:
    """Return the factor that takes a quantity to ms, pA or mV.

    Args:
        quantity: "time", "current" or "voltage".
        unit: its unit in the file; upper and lower case are not told apart, but for M: mega is no unit of these.

    Raises:
        ValueError: for a unit that the quantity does not come in.

    Example:
        >>> to_library_unit("current", "nA"), to_library_unit("voltage", "V"), to_library_unit("time", "s")
        (1000.0, 1000.0, 1000.0)
    """
    if not is_unit(quantity, unit):
        raise ValueError(f"{quantity} in {unit!r}: the units known are {_NAMES[quantity]}")
    return _FACTORS[quantity][_normalised(unit)]


def _normalised(unit: str) -> str:
    # Two code points look like the micro sign; str.lower leaves the Greek letter, which is not in the tables.
    unit = unit.strip(" \0").replace("\u03bc", "µ")
    return unit if unit.startswith("M") and len(unit) > 1 else unit.lower()
