"""Readers of the field's spike files: the HDF5 of the Heidelberg data sets, and folders of N-MNIST's events."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxlif.files import open_hdf5, require_stored

EventFields = dict[str, Any]
"""Arguments of :class:`jaxlif.networks.Events` by name."""

_OVERFLOW_ROW, _OVERFLOW = 240, 2**13  # an event in this row says that the clock went round, µs


def read_hdf5(path: Path, shape: tuple[int, ...]) -> EventFields:
    """Read the HDF5 layout of the Spiking Heidelberg Digits and Spiking Speech Commands.

    Args:
        path: the file, with ``spikes/times`` (s) and ``spikes/units``, one list per sample, ``labels``, and where
            there are ``extra/keys``, the names of the classes, and arrays with an entry per sample in ``extra``.
        shape: of the channels.

    Returns:
        Fields of :class:`jaxlif.networks.Events`, times in ms in float32 (the files hold float16).

    Raises:
        ValueError: for a damaged file, one without these groups, or lists that do not fit together.
        ImportError: without h5py.
    """
    h5py = _h5py()
    with open_hdf5(path) as file:
        for name in ("spikes/times", "spikes/units", "labels"):
            if not isinstance(file.get(name), h5py.Dataset):
                raise ValueError(f"{name} is missing: needed are spikes/times, spikes/units and labels")
        times, units = _lists(file["spikes/times"], "fiu"), _lists(file["spikes/units"], "iu")
        labels = _whole(file["labels"])
        group = file.get("extra")
        items = group.items() if isinstance(group, h5py.Group) else ()
        extra = {name: _whole(x) for name, x in items if isinstance(x, h5py.Dataset)}
    counts = [np.array([len(x) for x in lists], int) for lists in (times, units)]
    if len(counts[0]) != len(counts[1]) or (counts[0] != counts[1]).any():
        raise ValueError("spikes/times and spikes/units must be as long for every sample")
    keys = extra.pop("keys") if "keys" in extra else numbered_classes(labels)
    return {
        "times": np.concatenate([np.zeros(0, np.float32), *times], dtype=np.float32) * np.float32(1000.0),
        "units": np.concatenate([np.zeros(0, np.uint8), *units]),
        "offsets": np.concatenate([[0], np.cumsum(counts[0])]),
        "labels": labels,
        "shape": shape,
        "classes": tuple(x.decode() if isinstance(x, bytes) else str(x) for x in keys),
        "extra": {name: x for name, x in extra.items() if len(np.atleast_1d(x)) == len(labels)},
    }


def _whole(dataset: Any) -> np.ndarray:
    require_stored(dataset.name, dataset)
    return dataset[()]


def _lists(dataset: Any, kinds: str) -> np.ndarray:
    """Return a list of numbers for each sample, whose type loses nothing in times or units."""
    import h5py

    kind = h5py.check_vlen_dtype(dataset.dtype)
    if dataset.ndim != 1 or kind is None or np.dtype(kind).kind not in kinds:
        wanted = f"a list of {'integers' if kinds == 'iu' else 'real numbers'} for each sample is expected"
        raise ValueError(f"{dataset.name} {list(dataset.shape)} holds {kind or dataset.dtype}: {wanted}")
    return _whole(dataset)


def read_bin_folder(path: Path, shape: tuple[int, ...]) -> EventFields:
    """Read a folder with a folder per class of N-MNIST's ``.bin`` files.

    An event is 5 bytes: column, row, and 24 bits of polarity (the highest) and time in µs. An event in row 240 says
    that the clock went round once more.

    Args:
        path: the folder; the names of the classes are those of its folders, in order.
        shape: (polarities, height, width) of the channels.

    Returns:
        Fields of :class:`jaxlif.networks.Events`; ``extra`` holds the file's name of each sample.

    Raises:
        ValueError: for a folder without classes, a class without files, a file of another length than whole events, or
            an event outside the frame.
    """
    if len(shape) != 3:
        raise ValueError(f"shape = {list(shape)}: .bin files need (polarities, height, width)")
    folders = sorted(x for x in path.iterdir() if x.is_dir())
    if not folders:
        raise ValueError("no folder inside: there must be one for each class")
    files = [(label, file) for label, folder in enumerate(folders) for file in sorted(folder.glob("*.bin"))]
    samples = [_read_bin(file, shape) for _, file in files]
    counts = [len(times) for times, _ in samples]
    return {
        "times": _joined([times for times, _ in samples], float),
        "units": _joined([units for _, units in samples], np.int32),
        "offsets": np.concatenate([[0], np.cumsum(counts, dtype=int)]),
        "labels": np.array([label for label, _ in files], int),
        "shape": shape,
        "classes": tuple(folder.name for folder in folders),
        "extra": {"file": np.array([file.name for _, file in files])},
    }


def numbered_classes(labels: np.ndarray) -> tuple[str, ...]:
    """Return "0", "1", ... up to the highest label, for a file that names no classes.

    Args:
        labels: [S], integers.

    Returns:
        K names.

    Raises:
        ValueError: for labels that are not integers [S], or one that leaves classes without a sample.
    """
    if np.ndim(labels) != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels are {labels.dtype} {list(np.shape(labels))}: they must be integers [samples]")
    if (labels >= len(labels)).any():
        first = int(np.argmax(labels >= len(labels)))
        rule = f"{len(labels)} samples cannot have one of every class up to it, and every class must have one"
        raise ValueError(f"labels[{first}] = {labels[first]}: {rule}")
    return tuple(map(str, range(1 + int(max(labels, default=-1)))))


def _read_bin(path: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return times, ms, and units of a file."""
    if not path.is_file():
        raise ValueError(f"{path.parent.name}/{path.name} is no file")
    raw = np.fromfile(path, np.uint8)
    where = f"{path.parent.name}/{path.name}"
    if len(raw) % 5:
        raise ValueError(f"{where} has {len(raw)} bytes: an event has 5, so the file was cut short or is no event file")
    column, row, high, middle, low = raw.reshape(-1, 5).astype(np.int64).T
    polarity, time = high >> 7, (high & 127) << 16 | middle << 8 | low
    round_again = row == _OVERFLOW_ROW
    time = (time + _OVERFLOW * np.cumsum(round_again))[~round_again]
    place = [x[~round_again] for x in (polarity, row, column)]
    for name, x, size in zip(("polarity", "row", "column"), place, shape, strict=True):
        if (x >= size).any():
            first = int(np.argmax(x >= size))
            raise ValueError(f"{where}: {name} of event {first} is {x[first]}: it must lie between 0 and {size - 1}")
    return time / 1000.0, np.ravel_multi_index(place, shape)


def _joined(lists: Any, kind: Any) -> np.ndarray:
    return np.concatenate([np.zeros(0, kind), *(np.asarray(x, kind) for x in lists)])


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError("HDF5 files need the package h5py: pip install 'jaxlif[snn]'") from error
    return h5py
