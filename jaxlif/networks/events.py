"""Spike data for networks: events of many samples with labels, read from files that the user has, and binned."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from jaxlif.checks import integers, numbers, positive, require, whole
from jaxlif.files import load_arrays, open_hdf5, optional, reading, require_file, require_memory, require_stored
from jaxlif.spiketrains import step_slack

_MOST = 2**31 - 2  # a step that is told from all before it, and that int32 holds with the one after it


@dataclass(frozen=True, eq=False, repr=False)
class Events:
    r"""Labelled samples of spikes: sample i has the events from ``offsets[i]`` to ``offsets[i + 1]``, in any order.

    Args:
        times: of all events [E], ms from the start of their sample.
        units: channel of each event [E], integers from 0 to N - 1.
        offsets: [S + 1], from 0 to E.
        labels: of the samples [S], integers from 0 to K - 1.
        shape: of the channels, such as (700,) or (2, 34, 34); N is their product.
        classes: names of the K classes; by default their numbers.

    Example:
        >>> events = Events(times=np.array([0.5, 7.2, 3.0]), units=np.array([0, 1, 1]), offsets=np.array([0, 2, 3]),
        ...                 labels=np.array([0, 1]), shape=(2,), classes=("left", "right"))
        >>> events
        Events(2 samples, 2 units, 2 classes, 3 events in 7.2 ms)
        >>> events.dense(dt=5.0).tolist(), events.mask(dt=5.0).tolist()
        ([[[1, 0], [0, 1]], [[0, 1], [0, 0]]], [[True, True], [True, False]])
    """

    times: np.ndarray
    units: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    shape: tuple[int, ...]
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        times = np.asarray(numbers("times", self.times, "ms", rank=1))
        units, offsets, labels = (np.asarray(integers(n, getattr(self, n), 1)) for n in ("units", "offsets", "labels"))
        if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(times) or (offsets[1:] < offsets[:-1]).any():
            raise ValueError(f"offsets must rise from 0 to {len(times)}, the number of events")
        for name, found, wanted in (("units", units, len(times)), ("labels", labels, len(offsets) - 1)):
            if len(found) != wanted:
                raise ValueError(f"{name} have shape {list(found.shape)}: they must be {[wanted]}")
        shape = tuple(whole("shape", int(n), 1) for n in integers("shape", np.atleast_1d(self.shape), 1))
        require(times >= 0, "times", times, "ms", "times must be 0 ms or more")
        require((units >= 0) & (units < prod(shape)), "units", units, "", f"units must be 0 to {prod(shape) - 1}")
        if not np.iterable(self.classes) or isinstance(self.classes, str | dict):
            raise ValueError(f"classes is {type(self.classes).__name__}: it must be a tuple of names")
        names = tuple(map(str, self.classes))
        # Every class has a sample: there are no more of them.
        most = (len(names) or len(labels)) - 1
        require((labels >= 0) & (labels <= most), "labels", labels, "", f"labels must lie between 0 and {most}")
        counts = np.bincount(labels.astype(int), minlength=len(names))
        require(counts > 0, "samples of class", counts, "", "every class must have one")
        # Unsigned offsets have no differences.
        vars(self).update(times=times, units=units, offsets=offsets.astype(np.int64), labels=labels)
        vars(self).update(shape=shape, classes=names or tuple(map(str, range(len(counts)))))

    def __len__(self) -> int:
        """Return the number of samples S."""
        return len(self.labels)

    def __repr__(self) -> str:
        sizes = f"{len(self)} samples, {prod(self.shape)} units, {len(self.classes)} classes"
        return f"Events({sizes}, {len(self.times)} events in {self.times.max(initial=0.0):g} ms)"

    def dense(self, dt: float, num_steps: int | None = None) -> Int[np.ndarray, "S T N"]:
        r"""Count the events of each unit in each step: :math:`n = \lfloor t / dt \rfloor`, from n dt on.

        Events after ``num_steps`` steps are left out; by default there are enough for the last. Counts are uint8 unless
        one is above 255.
        """
        steps, num_steps = self._steps(dt, num_steps)
        units = prod(self.shape)
        size = num_steps * units
        require_memory((len(self) + 8) * size, f"{len(self)} samples of {num_steps} steps and {units} units")
        counts = np.zeros((len(self), num_steps, units), np.uint8)
        for i, (first, last) in enumerate(zip(self.offsets[:-1], self.offsets[1:], strict=True)):
            kept = steps[first:last] < num_steps
            place = steps[first:last][kept] * units + self.units[first:last][kept].astype(np.int64)
            count = np.bincount(place, minlength=size)
            if np.max(count, initial=0) > np.iinfo(counts.dtype).max:
                counts = counts.astype(np.int32)
            counts[i] = count.reshape(num_steps, -1)
        return counts

    def mask(self, dt: float, num_steps: int | None = None) -> Bool[np.ndarray, "S T"]:
        """Mark the steps of each sample that are its own, and no padding behind its last event.

        Losses and ``jnp.mean(v, axis=1, where=mask[..., None])`` take it, so that a sample gives the same in a batch as
        alone. Arguments are those of :meth:`dense`; the first step always counts.
        """
        steps, num_steps = self._steps(dt, num_steps)
        last = np.zeros(len(self), np.int64)
        np.maximum.at(last, np.repeat(np.arange(len(self)), np.diff(self.offsets)), steps)
        return np.arange(num_steps) <= last[:, None]

    def _steps(self, dt: float, num_steps: int | None) -> tuple[np.ndarray, int]:
        """Return the step of each event, and T."""
        dt = positive("dt", dt, "ms")
        # 0.3/0.1 divides to a little less than 3: what the times' precision cannot tell is rounding, not time.
        with np.errstate(over="ignore"):
            steps = np.floor(self.times.astype(float) / dt + step_slack(self.times, dt))
        steps = np.minimum(steps, _MOST).astype(np.int64)
        if num_steps is not None:
            return steps, whole("num_steps", num_steps, 1)
        if (last := int(steps.max(initial=0))) == _MOST:
            raise ValueError(f"dt = {dt:g} ms: the last event lies 2^31 steps or more away")
        return steps, last + 1


def read_events(path: str | Path, *, shape: tuple[int, ...] | None = None) -> Events:
    """Read labelled spikes from a file or folder; nothing is downloaded and nothing unpickled.

    * ``.h5``, ``.hdf5``: the layout of the Spiking Heidelberg Digits and Spiking Speech Commands, ``spikes/times`` in
      seconds, ``spikes/units``, ``labels`` and, where there are, the classes' names, ``extra/keys``.
    * a folder with one folder per class of N-MNIST's ``.bin`` files, by the package tonic.
    * ``.npz``: the arrays of :class:`Events` by name.

    ``shape`` is that of the channels, by default (700,), (2, 34, 34), or what the archive says.

    Raises:
        ValueError: for an unknown format, a damaged file, or arrays that do not fit together, with the file's name.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "two.npz"
        ...     np.savez(path, times=[0.5, 7.2], units=[0, 3], offsets=[0, 1, 2], labels=[0, 1], shape=[4])
        ...     read_events(path)
        Events(2 samples, 4 units, 2 classes, 2 events in 7.2 ms)

    Source: Cramer et al. 2022, doi:10.1109/TNNLS.2020.3044364 (SHD, SSC); Orchard et al. 2015,
    doi:10.3389/fnins.2015.00437 (N-MNIST).
    """
    path = Path(path)
    with reading(path):
        if path.is_dir():
            return _read_folder(path, shape or (2, 34, 34))
        require_file(path)
        readers = {".h5": _read_hdf5, ".hdf5": _read_hdf5, ".npz": _read_npz}
        if path.suffix.lower() not in readers:
            raise ValueError(
                f"format {path.suffix!r} is not known; known are .h5, .hdf5, .npz and folders of .bin files"
            )
        return readers[path.suffix.lower()](path, shape)


def _read_folder(path: Path, shape: tuple[int, ...]) -> Events:
    tonic = optional("tonic.io", "N-MNIST needs the package tonic", "events")
    folders = sorted(x for x in path.iterdir() if x.is_dir())
    if not folders or len(shape) != 3:
        raise ValueError(f"it has {len(folders)} folders, one for each class, and shape = {list(shape)} three axes")
    times, units, labels = [np.zeros(0)], [np.zeros(0, int)], []
    for label, folder in enumerate(folders):
        for file in sorted(folder.glob("*.bin")):
            name = f"{folder.name}/{file.name}"
            if not file.is_file() or file.stat().st_size % 5:
                raise ValueError(f"{name} is no file of events of 5 bytes, or was cut short")
            events = tonic.read_mnist_file(str(file), np.dtype([(axis, np.int64) for axis in "xytp"]))
            for axis, size in zip("pyx", shape, strict=True):
                require(events[axis] < size, f"{name}: {axis}", events[axis], "", f"{axis} must be 0 to {size - 1}")
            times.append(events["t"] / 1000.0)
            units.append(np.ravel_multi_index((events["p"], events["y"], events["x"]), shape))
            labels.append(label)
    offsets = np.cumsum([len(t) for t in times])
    arrays = np.concatenate(times), np.concatenate(units), offsets, np.array(labels, int)
    return Events(*arrays, shape=shape, classes=tuple(folder.name for folder in folders))


def _read_hdf5(path: Path, shape: tuple[int, ...] | None) -> Events:
    h5py = optional("h5py", "HDF5 files need the package h5py", "snn")

    def _stored(file: Any, name: str, kinds: str = "") -> Any:
        dataset = file.get(name)
        if not isinstance(dataset, h5py.Dataset):
            raise ValueError(f"{name} is missing: needed are spikes/times, spikes/units and labels")
        kind = h5py.check_vlen_dtype(dataset.dtype)
        if kinds and (dataset.ndim != 1 or kind is None or np.dtype(kind).kind not in kinds):
            wanted = f"a list of {'integers' if kinds == 'iu' else 'real numbers'} for each sample is expected"
            raise ValueError(f"{name} {list(dataset.shape)} holds {kind or dataset.dtype}: {wanted}")
        require_stored(name, dataset)
        return dataset[()]

    with open_hdf5(path) as file:
        times, units = _stored(file, "spikes/times", "fiu"), _stored(file, "spikes/units", "iu")
        labels, keys = _stored(file, "labels"), _stored(file, "extra/keys") if "extra/keys" in file else ()
    counts = [len(x) for x in times]
    if counts != [len(x) for x in units]:
        raise ValueError("spikes/times and spikes/units must be as long for every sample")
    return Events(
        times=np.concatenate([np.zeros(0, np.float32), *times], dtype=np.float32) * np.float32(1000.0),
        units=np.concatenate([np.zeros(0, np.uint8), *units]),
        offsets=np.cumsum([0, *counts]),
        labels=labels,
        shape=shape or (700,),
        classes=tuple(x.decode() if isinstance(x, bytes) else str(x) for x in keys),
    )


def _read_npz(path: Path, shape: tuple[int, ...] | None) -> Events:
    needed = ("times", "units", "offsets", "labels", "shape")
    arrays: dict[str, Any] = load_arrays(path, (*needed, "classes")) | ({"shape": shape} if shape else {})
    for name in needed:
        if name not in arrays:
            raise ValueError(f"the array `{name}` is missing: needed are {', '.join(needed)}")
    return Events(**{name: arrays[name] for name in needed}, classes=tuple(arrays.get("classes", ())))
