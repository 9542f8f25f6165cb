"""A recording: the current that was injected and the voltage that was measured, in pA, mV and ms, checked once."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import wraps
from typing import Any, Self, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxlif.checks import choice, number, numbers, require_same_shape
from jaxlif.recordings.units import Sweeps, require_membrane, scale_notes

_SMALLEST_DT, _LARGEST_DT = 0.004, 5.0  # ms: 250 kHz and 200 Hz, beyond any patch-clamp recording
_SOURCES = ("recorded", "commanded", "unknown")

R = TypeVar("R")


class RecordingWarning(UserWarning):
    """Something in a recording that can be read but is probably not what was meant."""


@dataclass(frozen=True, eq=False, repr=False)
class Recording:
    """A current-clamp recording: sweeps of one length, one sampling interval, one cell.

    Sample n of ``current`` is held from n dt to (n + 1) dt, and sample n of ``voltage`` belongs to the end of that
    step, as in :func:`jaxlif.simulate`. Arrays of any real kind become read-only views in float64, [T] one sweep.

    Args:
        current: injected current, [sweeps, T] or [T], pA.
        voltage: membrane potential, of the shape of ``current``, mV; None for a stimulus without a response.
        dt: sampling interval, ms.
        spikes: spike raster of the shape of ``current``, True where a spike is known, or None.
        start: time at which the first step starts, ms.
        current_source: "recorded" by the amplifier, "commanded" by the protocol, or "unknown".
        name: where the recording comes from.
        sha256: checksum of the file that it was read from.
        electrode_current: current of a subthreshold trace for electrode compensation, [T_e], pA.
        electrode_voltage: voltage of that trace, [T_e], mV.
        stimulus: name of each sweep's stimulus, [sweeps] strings, or one for all; None where they have no names.
        corrections: what was put in place of the file's units, gains and offsets, by name.

    Raises:
        ValueError: for values that are not finite, shapes that differ, fewer than 2 samples, a dt outside 0.004 to
            5 ms, voltages in another unit, an unknown current source, or names of stimuli that are not one a sweep.

    Example:
        >>> recording = Recording(current=np.zeros((3, 1000)), voltage=np.full((3, 1000), -70.0), dt=0.1)
        >>> recording
        Recording(3 sweeps of 100 ms, dt = 0.1 ms, current unknown, with voltage)
        >>> recording.window(20.0, 50.0).num_steps
        300
    """

    current: Float[np.ndarray, "sweeps T"]
    voltage: Float[np.ndarray, "sweeps T"] | None = None
    _: KW_ONLY
    dt: float
    spikes: Bool[np.ndarray, "sweeps T"] | None = None
    start: float = 0.0
    current_source: str = "unknown"
    name: str = ""
    sha256: str = ""
    electrode_current: Float[np.ndarray, " T_e"] | None = None
    electrode_voltage: Float[np.ndarray, " T_e"] | None = None
    stimulus: Sequence[str] | None = None
    corrections: Mapping[str, float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        current = _sweeps("current", self.current, "pA")
        voltage = None if self.voltage is None else _voltage("voltage", self.voltage)
        spikes = None if self.spikes is None else _raster(self.spikes)
        for name, other in (("voltage", voltage), ("spikes", spikes)):
            if other is not None:
                require_same_shape(current=current, **{name: other})
        checked: dict[str, Any] = {"current": current, "voltage": voltage, "spikes": spikes, "dt": _interval(self.dt)}
        checked |= {"start": float(number("start", self.start, "ms")), "stimulus": _names(self.stimulus, len(current))}
        checked |= {"current_source": choice("current_source", self.current_source, _SOURCES)}
        trace = _trace(self.electrode_current, self.electrode_voltage)
        checked["electrode_current"], checked["electrode_voltage"] = trace
        for attribute, value in checked.items():
            object.__setattr__(self, attribute, value)
        for note in () if voltage is None else scale_notes(current, voltage, self.dt):
            warnings.warn(note, RecordingWarning, stacklevel=3)

    def __repr__(self) -> str:
        name = f"{self.name}: " if self.name else ""
        sweeps = f"{self.num_sweeps} sweep{'s' if self.num_sweeps > 1 else ''} of {self.duration:g} ms"
        voltage = "without voltage" if self.voltage is None else "with voltage"
        return f"Recording({name}{sweeps}, dt = {self.dt:g} ms, current {self.current_source}, {voltage})"

    @property
    def num_sweeps(self) -> int:
        """Number of sweeps."""
        return len(self.current)

    @property
    def num_steps(self) -> int:
        """Number of samples T of a sweep."""
        return int(self.current.shape[1])

    @property
    def duration(self) -> float:
        """Duration of a sweep, ms."""
        return self.num_steps * self.dt

    @property
    def times(self) -> Float[np.ndarray, " T"]:
        """Time [T] at the end of every step, ms: what ``voltage`` belongs to, and what a spike is labelled with."""
        return self.start + self.dt * np.arange(1, self.num_steps + 1)

    def measured_voltage(self) -> Float[np.ndarray, "sweeps T"]:
        """Return the voltage, mV; a stimulus without a response is refused with a ValueError."""
        if self.voltage is None:
            raise ValueError("voltage is missing: the recorded voltage, mV, is needed beside the current")
        return self.voltage

    def window(self, start: float, stop: float) -> Self:
        """Return the steps between two times, ms, on the clock of ``times``, which keep their values.

        Example:
            >>> recording = Recording(current=np.arange(100.0), dt=1.0).window(20.0, 50.0)
            >>> recording.current[0, 0], recording.times[0], recording.times[-1]
            (np.float64(20.0), np.float64(21.0), np.float64(50.0))
        """
        first, last = (round((t - self.start) / self.dt) for t in (start, stop))
        if not 0 <= first <= last - 2 <= self.num_steps - 2:
            bounds = f"{self.start:g} to {self.start + self.duration:g} ms"
            raise ValueError(f"window = {start:g} to {stop:g} ms: give at least two samples within {bounds}")
        return self.part(np.s_[:, first:last], start=self.start + first * self.dt)

    def select(self, sweeps: Sweeps) -> Self:
        """Return some of the sweeps, numbered from 0; one that does not exist, or none, is refused with a ValueError.

        Example:
            >>> Recording(current=np.arange(20.0).reshape(4, 5), dt=1.0).select([3, 0]).current[:, 0]
            array([15.,  0.])
        """
        chosen = sweep_indices(sweeps, self.num_sweeps)
        if np.array_equal(chosen, np.arange(self.num_sweeps)):
            return self  # an hour is not copied
        names = None if self.stimulus is None else [self.stimulus[s] for s in chosen]
        return self.part(np.s_[chosen, :], stimulus=names)

    def part(self, index: Any, **changes: Any) -> Self:
        """Return a part of every array by its index [sweeps, T], with fields changed."""
        names = ("current", "voltage", "spikes")
        arrays = {name: getattr(self, name)[index] for name in names if getattr(self, name) is not None}
        with warnings.catch_warnings():
            # The whole was judged already; a part of it varies less and would be suspected wrongly.
            warnings.simplefilter("ignore", RecordingWarning)
            return replace(self, **arrays | changes)


def sweep_indices(sweeps: Sweeps, num_sweeps: int) -> Int[np.ndarray, " chosen"]:
    """Return the numbers, from 0, of sweeps of which negative ones count from the end; refuse those there are not."""
    available = np.arange(num_sweeps)
    chosen = available[sweeps] if isinstance(sweeps, slice) else np.atleast_1d(np.asarray(sweeps))
    known = chosen.dtype.kind in "iu" and ((-num_sweeps <= chosen) & (chosen < num_sweeps)).all()
    if chosen.size == 0 or not known:
        raise ValueError(f"sweeps = {sweeps}: the recording has {num_sweeps}, numbered 0 to {num_sweeps - 1}")
    return available[chosen]


def repeats(recording: Recording) -> list[Int[np.ndarray, " group"]]:
    r"""Group the sweeps that received the same current, up to the noise with which it was measured.

    Two currents are the same where their difference d is noise without structure: the rms of its means over m = 50
    samples, and over an eighth of a sweep, stays below :math:`3 \sigma / \sqrt m + 0.01\, s`, with
    :math:`\sigma^2 = \mathrm{Var}(\Delta d) / 2` its white part and s the current's SD; and the rms of d itself stays
    below s / 2. Groups come in order of first appearance.

    Example:
        >>> ramp = np.arange(400.0)
        >>> repeats(Recording(current=np.stack([ramp, 2 * ramp, ramp]), dt=0.1))
        [array([0, 2]), array([1])]
    """
    groups: list[list[int]] = []
    for sweep, current in enumerate(recording.current):
        known = (group for group in groups if _same_current(recording.current[group[0]], current))
        if (group := next(known, None)) is None:
            groups.append(group := [])
        group.append(sweep)
    return [np.array(group) for group in groups]


def stimulus_label(recording: Recording, sweeps: Sequence[int] | np.ndarray) -> str:
    """Return what a group of sweeps with one stimulus is called: its name, or else its first sweep."""
    first = int(sweeps[0])
    return f"the stimulus of sweep {first}" if recording.stimulus is None else f"stimulus {recording.stimulus[first]}"


def remembered(find: Callable[..., R]) -> Callable[..., R]:
    """Let a function of a recording, and of numbers, find out once what it returns while the recording lives."""
    known: WeakKeyDictionary[Recording, dict[tuple[Any, ...], R]] = WeakKeyDictionary()

    @wraps(find)
    def _once(recording: Recording, *args: Any) -> R:
        found = known.setdefault(recording, {})
        if args not in found:
            value = find(recording, *args)
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
            found[args] = value
        return found[args]

    return _once


def _same_current(a: np.ndarray, b: np.ndarray) -> bool:
    difference, spread = b - a, np.std(a)
    if not difference.any():
        return True
    white = np.std(np.diff(difference)) / np.sqrt(2.0)
    lengths = {min(50, a.size), max(1, a.size // 8)}
    close = [_block_rms(difference, m) <= 3.0 * white / np.sqrt(m) + 0.01 * spread for m in lengths]
    return all(close) and bool(_block_rms(difference, 1) <= 0.5 * spread)


def _block_rms(x: np.ndarray, length: int) -> float:
    whole = x.size // length * length
    return float(np.sqrt(np.mean(x[:whole].reshape(-1, length).mean(axis=1) ** 2)))


def _sweeps(name: str, value: Any, unit: str) -> np.ndarray:
    array = np.asarray(numbers(name, value, unit, rank=(1, 2)), np.float64).view()
    shape = array.shape
    if array.size == 0 or shape[-1] < 2:
        raise ValueError(f"{name} has shape {shape}: [T] or [sweeps, T] with at least 2 samples is expected")
    if array.ndim == 2 and max(10, shape[1]) < shape[0]:
        raise ValueError(f"{name} has shape {shape}, more sweeps than samples: [sweeps, T] is expected, transposed?")
    array.flags.writeable = False
    return np.atleast_2d(array)


def _voltage(name: str, value: Any) -> np.ndarray:
    voltage = _sweeps(name, value, "mV")
    require_membrane(name, voltage)
    return voltage


def _raster(spikes: Any) -> np.ndarray:
    raster = np.atleast_2d(np.asarray(spikes))
    if raster.dtype.kind not in "biuf" or not np.isin(raster, (0, 1)).all():
        raise ValueError("spikes must be a raster of 0 and 1 (or booleans) of the shape of current, not spike times")
    raster = raster.astype(bool)
    raster.flags.writeable = False
    return raster


def _trace(current: Any, voltage: Any) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    if (current is None) != (voltage is None):
        raise ValueError("electrode_current and electrode_voltage belong together: give both or neither")
    if current is None:
        return None, None
    current, voltage = _sweeps("electrode_current", current, "pA"), _voltage("electrode_voltage", voltage)
    require_same_shape(electrode_current=current, electrode_voltage=voltage)
    if len(current) > 1:
        raise ValueError(f"electrode_current has {len(current)} sweeps: one trace [T_e] is expected")
    return current[0], voltage[0]


def _names(stimulus: Sequence[str] | None, num_sweeps: int) -> tuple[str, ...] | None:
    if stimulus is None:
        return None
    names = (stimulus,) * num_sweeps if isinstance(stimulus, str) else tuple(str(name) for name in stimulus)
    if len(names) != num_sweeps:
        raise ValueError(f"stimulus has {len(names)} names for {num_sweeps} sweeps: one for each sweep is expected")
    return names


def _interval(dt: Any) -> float:
    value = np.asarray(numbers("dt", dt, "ms", finite=False), np.float64)
    if value.size != 1 or not 0 < value.item() < np.inf:
        raise ValueError(f"dt = {dt} ms: the sampling interval must be one positive, finite number of ms")
    if _SMALLEST_DT <= (ms := value.item()) <= _LARGEST_DT:
        return float(ms)
    meant = {"seconds": 1000.0 * ms, "microseconds": 0.001 * ms, "a rate in Hz": 1000.0 / ms, "a rate in kHz": 1.0 / ms}
    likely = [f"{unit}: pass {x:g}" for unit, x in meant.items() if _SMALLEST_DT <= x <= _LARGEST_DT]
    guess = f"; it looks like {' or '.join(likely)}" if likely else ""
    raise ValueError(f"dt = {ms:g} ms is implausible ({_SMALLEST_DT:g} to {_LARGEST_DT:g} ms are accepted){guess}")
