"""Spike data for networks: events of many samples with labels, read from files that the user has, and binned."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.checks import concrete, integers, numbers, positive, require, require_positive, whole
from jaxlif.files import load_arrays, reading, require_file, require_memory
from jaxlif.networks.event_files import EventFields, numbered_classes, read_bin_folder, read_hdf5
from jaxlif.spiketrains import step_slack


class SparseEvents(NamedTuple):
    """Events of S samples on a time grid, each sample's padded to the same number E.

    Args:
        step: step of each event [S, E], int32; the padding lies one step behind the last.
        unit: its unit [S, E], int32.
    """

    step: np.ndarray
    unit: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Events:
    r"""Labelled samples of spikes, each a list of times and units, in order of time.

    Sample i has the events from ``offsets[i]`` to ``offsets[i + 1]``.

    Args:
        times: of all events [E], ms from the start of their sample.
        units: channel of each event [E], integers from 0 to N - 1.
        offsets: [S + 1], from 0 to E.
        labels: of the samples [S], integers from 0 to K - 1.
        shape: of the channels, such as (700,) or (2, 34, 34); N is their product.
        classes: names of the K classes.
        extra: more arrays [S, ...] by name, such as the speaker of each sample.

    Raises:
        ValueError: for arrays that do not fit together, times that are negative, not finite or not in order, a unit
            beyond N or a label beyond K. The message names the sample.

    Example:
        >>> events = Events(times=np.array([0.5, 7.2, 3.0]), units=np.array([0, 1, 1]), offsets=np.array([0, 2, 3]),
        ...                 labels=np.array([0, 1]), shape=(2,), classes=("left", "right"))
        >>> events
        Events(2 samples, 2 units, 2 classes, 3 events in 7.2 ms)
        >>> events.dense(dt=5.0).tolist()
        [[[1, 0], [0, 1]], [[0, 1], [0, 0]]]
    """

    times: np.ndarray
    units: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    extra: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "times", np.asarray(numbers("times", self.times, "ms", rank=1, finite=False)))
        for name in ("units", "offsets", "labels"):
            object.__setattr__(self, name, np.asarray(integers(name, getattr(self, name), 1)))
        object.__setattr__(self, "extra", {name: np.asarray(x) for name, x in self.extra.items()})
        for name, what in {"shape": "sizes", "classes": "names"}.items():
            value = getattr(self, name)
            if not np.iterable(value) or isinstance(value, str | dict):
                raise ValueError(f"{name} is {type(value).__name__}: it must be a tuple of {what}")
        object.__setattr__(self, "shape", tuple(int(n) for n in integers("shape", self.shape, 1)))
        object.__setattr__(self, "classes", tuple(str(name) for name in self.classes))
        _check_layout(self)
        _check_values(self)
        object.__setattr__(self, "offsets", self.offsets.astype(np.int64))  # unsigned ones have no differences

    def __len__(self) -> int:
        """Return the number of samples S."""
        return len(self.labels)

    def __repr__(self) -> str:
        sizes = f"{len(self)} samples, {self.num_units} units, {self.num_classes} classes"
        return f"Events({sizes}, {len(self.times)} events in {self.duration:g} ms)"

    @property
    def num_units(self) -> int:
        """Number of channels N."""
        return prod(self.shape)

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.classes)

    @property
    def duration(self) -> float:
        """Time of the last event of all samples, ms; 0 without events."""
        return float(self.times.max(initial=0.0))

    def sample(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the times, ms, and units of one sample."""
        index = range(len(self))[index]
        part = slice(self.offsets[index], self.offsets[index + 1])
        return self.times[part], self.units[part]

    def select(self, chosen: Sequence[int] | np.ndarray) -> Self:
        """Return some of the samples, in the order given.

        Args:
            chosen: indices, or a mask [S] of booleans.

        Returns:
            Events with the same units and classes.

        Raises:
            ValueError: for a mask of another length; IndexError for an index that is not there.
        """
        chosen = np.asarray(chosen)
        if chosen.dtype == bool:
            if chosen.shape != self.labels.shape:
                raise ValueError(f"the mask has shape {list(chosen.shape)}: it must be [{len(self)}], one per sample")
            chosen = np.flatnonzero(chosen)
        chosen = np.arange(len(self))[np.asarray(integers("chosen", chosen, 1)).astype(int)]
        counts = np.diff(self.offsets)[chosen]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        events = np.arange(offsets[-1]) + np.repeat(self.offsets[chosen] - offsets[:-1], counts)
        return type(self)(
            times=self.times[events],
            units=self.units[events],
            offsets=offsets,
            labels=self.labels[chosen],
            shape=self.shape,
            classes=self.classes,
            extra={name: values[chosen] for name, values in self.extra.items()},
        )

    def dense(self, dt: float, num_steps: int | None = None) -> np.ndarray:
        r"""Count the events of each unit in each step: :math:`n = \lfloor t / dt \rfloor`, from n dt on.

        Args:
            dt: step, ms.
            num_steps: T; later events are left out. By default enough for the last event.

        Returns:
            Counts [S, T, N], uint8 unless one is above 255.

        Raises:
            ValueError: for a dt or a number of steps that is not positive.
        """
        steps, num_steps = self._steps(dt, num_steps)
        size = num_steps * self.num_units
        require_memory((len(self) + 8) * size, f"{len(self)} samples of {num_steps} steps and {self.num_units} units")
        counts = np.zeros((len(self), num_steps, self.num_units), np.uint8)
        for i, (first, last) in enumerate(zip(self.offsets[:-1], self.offsets[1:], strict=True)):
            kept = steps[first:last] < num_steps
            place = steps[first:last][kept] * self.num_units + self.units[first:last][kept].astype(np.int64)
            count = np.bincount(place, minlength=size)
            if count.max(initial=0) > np.iinfo(counts.dtype).max:
                counts = counts.astype(np.int32)
            counts[i] = count.reshape(num_steps, -1)
        return counts

    def lengths(self, dt: float, num_steps: int | None = None) -> np.ndarray:
        """Return the number of steps of each sample, up to that of its last event.

        Args:
            dt: step, ms.
            num_steps: T, as for :meth:`dense`; no sample is longer.

        Returns:
            Steps [S], from 1 to T.

        Raises:
            ValueError: for a dt or a number of steps that is not positive.
        """
        steps, num_steps = self._steps(dt, num_steps)
        last = np.zeros(len(self), np.int64)
        some = np.diff(self.offsets) > 0
        last[some] = steps[self.offsets[1:][some] - 1]
        return np.minimum(last + 1, num_steps)

    def mask(self, dt: float, num_steps: int | None = None) -> np.ndarray:
        """Mark the steps of each sample that are its own, and no padding behind its last event.

        Readouts and losses take it, so that a sample gives the same in a batch as alone:
        ``jax.vmap(mean_over_time)(v, mask)``.

        Args:
            dt: step, ms.
            num_steps: T, as for :meth:`dense`.

        Returns:
            Booleans [S, T].

        Raises:
            ValueError: for a dt or a number of steps that is not positive.

        Example:
            >>> events = Events(times=np.array([0.5, 7.2, 3.0]), units=np.array([0, 1, 1]), offsets=np.array([0, 2, 3]),
            ...                 labels=np.array([0, 1]), shape=(2,), classes=("left", "right"))
            >>> events.lengths(dt=2.0).tolist(), events.mask(dt=2.0).astype(int).tolist()
            ([4, 2], [[1, 1, 1, 1], [1, 1, 0, 0]])
        """
        return np.arange(self._steps(dt, num_steps)[1]) < self.lengths(dt, num_steps)[:, None]

    def sparse(self, dt: float, num_steps: int | None = None) -> SparseEvents:
        """Put the events on a time grid without filling it: for data whose dense form is too large to keep.

        :func:`scatter_events` makes one sample of :meth:`dense` of a row, inside the compiled loss.

        Args:
            dt: step, ms.
            num_steps: T, as for :meth:`dense`; later events become padding.

        Returns:
            Steps and units [S, E] with E the largest number of events of a sample.

        Raises:
            ValueError: for a dt or a number of steps that is not positive.
        """
        steps, num_steps = self._steps(dt, num_steps)
        counts = np.diff(self.offsets)
        shape = (len(self), int(counts.max(initial=0)))
        row = np.repeat(np.arange(len(self)), counts)
        column = np.arange(len(self.times)) - np.repeat(self.offsets[:-1], counts)
        step, unit = np.full(shape, num_steps, np.int32), np.zeros(shape, np.int32)
        step[row, column] = np.minimum(steps, num_steps)
        unit[row, column] = self.units
        return SparseEvents(step, unit)

    def save(self, path: str | Path) -> None:
        """Write everything into an .npz archive that :func:`read_events` reads; ``extra`` under ``extra_<name>``."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in ("times", "units", "offsets", "labels")}
        arrays |= {"shape": np.array(self.shape), "classes": np.array(self.classes)}
        arrays |= {f"extra_{name}": values for name, values in self.extra.items()}
        with open(path, "wb") as file:
            np.savez_compressed(file, **arrays)

    def _steps(self, dt: float, num_steps: int | None) -> tuple[np.ndarray, int]:
        """Return the step of each event, and T."""
        dt = positive("dt", dt, "ms")
        num_steps = None if num_steps is None else whole("num_steps", num_steps, 1)
        # 0.3/0.1 divides to a little less than 3: what the times' precision cannot tell is rounding, not time.
        with np.errstate(over="ignore"):
            steps = np.floor(self.times.astype(float) / dt + step_slack(self.times, dt))
        steps = np.minimum(steps, _MOST).astype(np.int64)
        last = int(steps.max(initial=0))
        if num_steps is None and last == _MOST:
            raise ValueError(f"dt = {dt:g} ms: the last event, at {self.duration:g} ms, lies 2^31 steps or more away")
        return steps, last + 1 if num_steps is None else num_steps


_MOST = 2**31 - 2  # a step that is told from all before it, and that int32 holds with the one after it


def scatter_events(step: Array, unit: Array, num_steps: int, num_units: int) -> Array:
    """Count the events of one sample in each step and unit; what lies behind the last step is dropped.

    Args:
        step: of each event [E], integers.
        unit: of each event [E], integers.
        num_steps: T.
        num_units: N.

    Returns:
        Counts [T, N] in JAX's default precision.

    Raises:
        ValueError: for a negative step, a unit that is not there, where they are at hand, or sizes below 1.

    Example:
        >>> scatter_events(jnp.array([0, 1, 1, 2]), jnp.array([1, 0, 0, 0]), num_steps=2, num_units=2).tolist()
        [[0.0, 1.0], [2.0, 0.0]]
    """
    num_steps, num_units = whole("num_steps", num_steps, 1), whole("num_units", num_units, 1)
    step, unit = integers("step", step, 1), integers("unit", unit, 1)
    if concrete(step, unit):
        require(np.asarray(step) >= 0, "step", step, "", "step must be 0 or more")
        ok = (np.asarray(unit) >= 0) & (np.asarray(unit) < num_units) | (np.asarray(step) >= num_steps)
        require(ok, "unit", unit, "", f"unit must lie between 0 and {num_units - 1}")
    return jnp.zeros((num_steps, num_units)).at[step, unit].add(1.0, mode="drop")


def read_events(path: str | Path, *, shape: tuple[int, ...] | None = None, sort: bool = False) -> Events:
    """Read labelled spikes from a file or folder; nothing is downloaded and nothing unpickled.

    * ``.h5``, ``.hdf5``: the layout of the Spiking Heidelberg Digits and Spiking Speech Commands, ``spikes/times`` in
      seconds, ``spikes/units``, ``labels`` and, where there are, ``extra/keys`` (names) and ``extra/speaker``.
    * a folder with one folder per class of ``.bin`` files of N-MNIST's 5-byte events; the unit of an event is its
      place in ``shape`` = (2 polarities, height, width).
    * ``.npz``: the arrays that :meth:`Events.save` writes; or binned ``spikes`` [S, T, N], ``labels`` [S] and ``dt``
      in ms, whose events lie at the start of their step.

    Args:
        path: the file or folder.
        shape: of the channels; by default (700,), (2, 34, 34), or what the .npz archive says.
        sort: put events that are not in order of time in order, instead of refusing them.

    Returns:
        The events, times in ms.

    Raises:
        FileNotFoundError: for a path that does not exist.
        ValueError: for an unknown format, a damaged file, a missing group or array, a class without a sample, or values
            that :class:`Events` refuses. The message starts with the file's name.
        ImportError: for HDF5 without h5py.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "two.npz"
        ...     np.savez(path, spikes=np.eye(4, dtype=np.uint8).reshape(2, 2, 4), labels=np.array([0, 1]), dt=5.0)
        ...     read_events(path)
        Events(2 samples, 4 units, 2 classes, 4 events in 5 ms)

    Source: Cramer et al. 2022, doi:10.1109/TNNLS.2020.3044364 (SHD, SSC); Orchard et al. 2015,
    doi:10.3389/fnins.2015.00437 (N-MNIST).
    """
    path = Path(path)
    with reading(path):
        events = Events(**_in_order(_fields(path, shape), sort))
        empty = np.flatnonzero(np.bincount(events.labels.astype(np.int64), minlength=events.num_classes) == 0)
        if len(empty):
            raise ValueError(f"class {empty[0]} ({events.classes[empty[0]]}) has no sample: every class must have one")
    return events


def _fields(path: Path, shape: tuple[int, ...] | None) -> EventFields:
    if path.is_dir():
        return read_bin_folder(path, shape or (2, 34, 34))
    require_file(path)
    if path.suffix.lower() in (".h5", ".hdf5"):
        return read_hdf5(path, shape or (700,))
    if path.suffix.lower() == ".npz":
        return _read_npz(path, shape)
    raise ValueError(f"format {path.suffix!r} is not known; known are .h5, .hdf5, .npz and folders of .bin files")


def _in_order(fields: EventFields, sort: bool) -> EventFields:
    if not sort:
        return fields
    counts = np.diff(fields["offsets"]).astype(np.int64)
    sample = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((fields["times"], sample))
    return fields | {name: fields[name][order] for name in ("times", "units")}


_ARRAYS = ("times", "units", "offsets", "labels", "shape", "classes", "spikes", "dt")


def _read_npz(path: Path, shape: tuple[int, ...] | None) -> EventFields:
    arrays = load_arrays(path, _ARRAYS, prefix="extra_")
    needed = ("spikes", "labels", "dt") if "spikes" in arrays else ("times", "units", "offsets", "labels", "shape")
    for name in needed:
        if name not in arrays and not (name == "shape" and shape):
            raise ValueError(f"the array `{name}` is missing: needed are {', '.join(needed)}")
    plain = {name: arrays[name] for name in needed if name in arrays}
    fields: EventFields = _unbinned(arrays) if "spikes" in arrays else plain
    fields["shape"] = tuple(np.atleast_1d(fields["shape"] if shape is None else np.array(shape)).tolist())
    extra = {name.removeprefix("extra_"): x for name, x in arrays.items() if name.startswith("extra_")}
    names = arrays["classes"] if "classes" in arrays else numbered_classes(arrays["labels"])
    return fields | {"classes": tuple(map(str, names)), "extra": extra}


def _unbinned(arrays: dict[str, np.ndarray]) -> EventFields:
    """Make events of counts [S, T, ...], at the start of their steps."""
    spikes, dt = arrays["spikes"], arrays["dt"]
    if spikes.ndim < 3:
        raise ValueError(f"spikes have shape {list(spikes.shape)}: they must be [samples, steps, units]")
    if dt.shape != ():
        raise ValueError(f"dt has shape {list(dt.shape)}: it must be one number, ms")
    require_positive("dt", dt, "ms")
    flat = spikes.reshape(*spikes.shape[:2], -1)
    if not ((flat >= 0) & (flat == np.floor(flat))).all():
        raise ValueError("spikes must be whole numbers of 0 or more")
    require_memory(8 * 4 * int(flat.sum(dtype=float)), f"{flat.sum(dtype=float):.4g} spikes")
    place = np.nonzero(flat)
    sample, step, unit = (np.repeat(x, flat[place].astype(int)) for x in place)
    offsets = np.searchsorted(sample, np.arange(len(spikes) + 1))
    return {
        # In the precision of dt, so that a grid of it can be told from between.
        "times": (step * float(dt)).astype(dt.dtype if dt.dtype.kind == "f" else float),
        "units": unit,
        "offsets": offsets,
        "labels": arrays["labels"],
        "shape": spikes.shape[2:],
    }


def _check_layout(events: Events) -> None:
    """Refuse arrays whose shapes or types do not fit together."""
    num, offsets = len(events.times), events.offsets
    for name, shape in (("times", (num,)), ("units", (num,)), ("labels", (len(offsets) - 1,))):
        found = getattr(events, name).shape
        if found != shape:
            raise ValueError(f"{name} have shape {list(found)}: they must be {list(shape)}")
    for name in ("units", "offsets", "labels"):
        kind = getattr(events, name).dtype
        if not np.issubdtype(kind, np.integer):
            raise ValueError(f"{name} are {kind}: they must be integers")
    if offsets[0] != 0 or offsets[-1] != num or (offsets[1:] < offsets[:-1]).any():
        raise ValueError(f"offsets must rise from 0 to {num}, the number of events")
    if min(events.shape, default=0) < 1:
        raise ValueError(f"shape = {list(events.shape)}: there must be at least one unit")
    for name, values in events.extra.items():
        if values.dtype == object:
            raise ValueError(f"extra {name!r} holds objects: it must be an array of numbers or text")
        if len(values) != len(events):
            raise ValueError(f"extra {name!r} has {len(values)} entries: it must have one for each of the samples")


def _check_values(events: Events) -> None:
    """Refuse times, units and labels that break a rule, naming the first."""
    times, units, labels = events.times, events.units, events.labels
    _require(events, np.isfinite(times), "times", " ms", "times must be finite")
    _require(events, times >= 0, "times", " ms", "times must be 0 ms or more")
    rising = np.concatenate([[True], np.diff(times) >= 0])[: len(times)]
    rising[events.offsets[:-1][np.diff(events.offsets) > 0]] = True
    _require(events, rising, "times", " ms", "times must be in order (sort=True puts them in order)")
    most = events.num_units - 1
    _require(events, (units >= 0) & (units <= most), "units", "", f"units must lie between 0 and {most}")
    wrong = np.flatnonzero((labels < 0) | (labels >= events.num_classes))
    if len(wrong):
        rule = f"labels must lie between 0 and {events.num_classes - 1}"
        raise ValueError(f"labels[{wrong[0]}] = {labels[wrong[0]]}: {rule}")


def _require(events: Events, ok: np.ndarray, name: str, unit: str, rule: str) -> None:
    if ok.all():
        return
    first = int(np.argmin(ok))
    sample = int(np.searchsorted(events.offsets, first, side="right")) - 1
    value: Any = getattr(events, name)[first]
    raise ValueError(f"sample {sample}: {name}[{first - events.offsets[sample]}] = {value:g}{unit}: {rule}")
