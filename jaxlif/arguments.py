"""The texts of the command line's options, read into values; a ValueError says what to write instead."""

import re
from collections.abc import Callable

import jax

from jaxlif import stimulus as stimuli
from jaxlif.recordings import Recording


def window_of(text: str, recording: Recording) -> tuple[float, float]:
    """Read "0:10", "0:10s" or "0:10000ms" as a window in ms."""
    digits = r"(\d+\.?\d*|\.\d+)"
    found = re.fullmatch(rf"\s*{digits}\s*:\s*{digits}\s*(ms|s)?\s*", text)
    if found is None:
        raise ValueError(f"train = {text!r}: write START:STOP in seconds, such as 0:10, or with a unit, 0:10000ms")
    first, last, unit = float(found[1]), float(found[2]), found[3]
    # Seconds that the recording does not have are ms, but not where a misjudged duration is likelier: 0:10 of 6 s.
    beyond = 1000.0 * last > recording.start + recording.duration + 1e-6
    factor = 1.0 if unit == "ms" or (unit is None and beyond and last - first >= 100.0) else 1000.0
    return factor * first, factor * last


def bounds_of(texts: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """Read "tau_m=5:40" as an interval."""
    bounds = {}
    for text in texts:
        name, _, interval = text.partition("=")
        low, colon, high = interval.partition(":")
        if not colon:
            raise ValueError(f"bounds = {text!r}: write NAME=LOW:HIGH, such as tau_m=5:40")
        bounds[name.strip()] = number("bounds", text, low), number("bounds", text, high)
    return bounds


def electrode_of(text: str) -> float | str | None:
    """Read "auto", "none" or a resistance."""
    if text in ("auto", "none"):
        return "auto" if text == "auto" else None
    return number("electrode", text, text)


def number(option: str, text: str, part: str) -> float:
    """Return a part of an option's text as a number."""
    try:
        return float(part)
    except ValueError as error:
        raise ValueError(f"{option} = {text!r}: {part!r} is not a number") from error


def stimulus_of(text: str, seed: int, duration: float, dt: float) -> jax.Array:
    """Make the current that "noise:200:150:5" and the like describe."""
    kind, *parts = text.split(":")
    numbers = [number("stimulus", text, part) for part in parts]
    if kind not in _STIMULI or len(numbers) != _STIMULI[kind].count(":"):
        raise ValueError(f"stimulus = {text!r}: write {', '.join(_STIMULI.values())}")
    if kind == "noise":
        mean, sd, tau = numbers
        return stimuli.ornstein_uhlenbeck(jax.random.key(seed), mean, sd, tau, duration, dt)
    shapes: dict[str, Callable[..., jax.Array]] = {
        "step": stimuli.step,
        "ramp": stimuli.ramp,
        "sine": stimuli.sinusoid,
    }
    return shapes[kind](*numbers, duration, dt)


_STIMULI = {
    "step": "step:AMPLITUDE:START:STOP",
    "ramp": "ramp:FROM:TO",
    "sine": "sine:MEAN:AMPLITUDE:HZ",
    "noise": "noise:MEAN:SD:TAU",
}


def sweep_numbers(text: str) -> list[int]:
    """Read "0,2-5" as the sweeps 0, 2, 3, 4 and 5.

    Example:
        >>> sweep_numbers("0,2-5")
        [0, 2, 3, 4, 5]
    """
    numbers: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if found is None or int(found[2] or found[1]) < int(found[1]):
            raise ValueError(f"sweeps = {text!r}: write numbers from 0 and ranges, such as 0,2-5")
        numbers += range(int(found[1]), int(found[2] or found[1]) + 1)
    return numbers
