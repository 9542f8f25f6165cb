"""The units that files are written in, and the factors that take them to ms, pA and mV."""

_FACTORS = {
    "time": {"s": 1e3, "sec": 1e3, "ms": 1.0, "us": 1e-3, "µs": 1e-3},
    "current": {"a": 1e12, "ma": 1e9, "ua": 1e6, "µa": 1e6, "na": 1e3, "pa": 1.0},
    "voltage": {"v": 1e3, "mv": 1.0, "uv": 1e-3, "µv": 1e-3},
    "rate": {"hz": 1.0, "khz": 1e3},
}
_NAMES = {"time": "s, ms, us", "current": "A, mA, uA, nA, pA", "voltage": "V, mV, uV", "rate": "Hz, kHz"}


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
        unit: its unit in the file; upper and lower case are not told apart.

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
    return unit.strip(" \0").lower().replace("\u03bc", "µ")
