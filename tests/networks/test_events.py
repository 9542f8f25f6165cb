"""Spike data: files in the real formats, written here by hand; binning; what is refused."""

import sys

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.networks import Dense, Events, Sequential, init_dense, init_neurons, read_events

RNG, KEY = np.random.default_rng(0), jax.random.key(0)


def example(samples=5, num_units=6, classes=3):
    counts = RNG.integers(0, 9, samples)
    times = [np.sort(RNG.uniform(0.0, 50.0, count)) for count in counts]
    return Events(
        times=np.concatenate(times),
        units=RNG.integers(0, num_units, counts.sum()),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        labels=np.arange(samples) % classes,
        shape=(num_units,),
        classes=("a", "b", "c")[:classes],
    )


def write_shd(path, times, units, labels, keys=(b"zero", b"one"), leave_out=()):
    """Write the layout of the Heidelberg data sets: lists of float16 seconds and uint16 units."""
    groups = {"spikes/times": (times, np.float16), "spikes/units": (units, np.uint16)}
    with h5py.File(path, "w") as file:
        for name, (lists, kind) in groups.items():
            if name not in leave_out:
                data = file.create_dataset(name, (len(lists),), dtype=h5py.vlen_dtype(kind))
                for i, values in enumerate(lists):
                    data[i] = np.array(values, kind)
        if "labels" not in leave_out:
            file["labels"] = np.array(labels, np.uint16)
        file["extra/keys"] = np.array(keys)
        file["extra/speaker"] = np.arange(len(labels), dtype=np.uint16)


def write_bin(path, column, row, polarity, time):
    """Write N-MNIST events: column, row, then the polarity above 23 bits of time, high byte first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    events = zip(column, row, polarity, time, strict=True)
    path.write_bytes(b"".join(bytes([x, y]) + (p << 23 | t).to_bytes(3, "big") for x, y, p, t in events))


def test_shd(tmp_path):
    path = tmp_path / "shd_test.h5"
    write_shd(path, [[0.0, 0.25, 0.5], [], [0.125]], [[0, 699, 7], [], [3]], [1, 0, 1])
    events = read_events(path)
    assert (len(events), events.shape, events.classes) == (3, (700,), ("zero", "one"))
    np.testing.assert_array_equal(events.times, [0.0, 250.0, 500.0, 125.0])
    np.testing.assert_array_equal(events.units, [0, 699, 7, 3])
    np.testing.assert_array_equal(events.offsets, [0, 3, 3, 4])
    np.testing.assert_array_equal(events.labels, [1, 0, 1])
    dense = events.dense(dt=10.0)
    assert dense.shape == (3, 51, 700) and dense.dtype == np.uint8 and dense.sum() == 4
    assert dense[0, 25, 699] == dense[0, 50, 7] == dense[2, 12, 3] == 1


def test_nmnist(tmp_path):
    pytest.importorskip("tonic")
    write_bin(tmp_path / "0" / "00002.bin", [0, 33, 5], [0, 33, 6], [0, 1, 1], [0, 1500, 2**23 - 1])
    write_bin(tmp_path / "1" / "00001.bin", [], [], [], [])
    # Row 240 marks that the clock went round: 8.192 ms more from there on, and no event of its own.
    write_bin(tmp_path / "1" / "00003.bin", [1, 0, 2], [2, 240, 3], [0, 0, 0], [8000, 0, 10])
    events = read_events(tmp_path)
    assert (events.shape, events.classes) == ((2, 34, 34), ("0", "1"))
    np.testing.assert_array_equal(events.times, [0.0, 1.5, 8388.607, 8.0, 8.202])
    np.testing.assert_array_equal(
        events.units, [0, 34 * 34 + 33 * 34 + 33, 34 * 34 + 6 * 34 + 5, 2 * 34 + 1, 3 * 34 + 2]
    )
    np.testing.assert_array_equal(events.labels, [0, 1, 1])
    np.testing.assert_array_equal(np.diff(events.offsets), [3, 0, 2])
    image = events.dense(dt=1.0, num_steps=10)[2].reshape(10, 2, 34, 34)
    assert image.sum() == 2 and image[8, 0, 2, 1] == 1 and image[8, 0, 3, 2] == 1


def test_arrays_by_name(tmp_path):
    events = example()
    names = ("times", "units", "offsets", "labels", "shape", "classes")
    np.savez(tmp_path / "events.npz", **{name: getattr(events, name) for name in names})
    again = read_events(tmp_path / "events.npz")
    for name in names[:4]:
        np.testing.assert_array_equal(getattr(again, name), getattr(events, name))
    assert (again.shape, again.classes) == (events.shape, events.classes)


def one_sample(times):
    count = len(times)
    return Events(times, np.zeros(count, int), np.array([0, count]), np.array([0]), (1,), ("x",))


@pytest.mark.parametrize("dt", [0.1, 0.3, 0.7, 1.0 / 3.0])
def test_events_on_the_edge_of_a_bin_fall_into_it_once(dt):
    """Whether the product or its factors were rounded to single precision."""
    steps, narrow = np.arange(20_000), np.float32(dt)
    for times in (
        (steps * dt).astype("f4"),
        steps.astype("f4") * narrow,
        steps * dt,
        (dt / 1e3 * steps).astype("f4") * 1e3,
    ):
        events = one_sample(times)
        assert (events.dense(dt) == 1).all() and events.mask(dt).sum() == 20_000
        # What lies between the edges stays where it is.
        assert (one_sample(times + np.asarray(0.4 * dt, times.dtype)).dense(dt) == 1).all()


def sample(events, i):
    """Return one sample alone."""
    part = slice(events.offsets[i], events.offsets[i + 1])
    return Events(events.times[part], events.units[part], [0, part.stop - part.start], [0], events.shape)


def test_masks_end_with_the_last_event():
    events = example()
    for num_steps in (None, 5):
        dense, mask = events.dense(4.0, num_steps), events.mask(4.0, num_steps)
        for i in range(len(events)):
            alone = sample(events, i).dense(4.0)[0][:num_steps]
            np.testing.assert_array_equal(dense[i, : len(alone)], alone)
            np.testing.assert_array_equal(mask[i], np.arange(dense.shape[1]) < len(alone))
    assert one_sample(np.zeros(0)).mask(1.0, 3).tolist() == [[True, False, False]]


def test_a_sample_gives_the_same_logits_in_a_batch_as_alone():
    """Behind a network that goes on spiking after the last event; the readouts and losses are held to it elsewhere."""
    times = np.concatenate([np.sort(RNG.uniform(0.0, end, 8 * end)) for end in (20, 75)])
    events = Events(times, RNG.integers(0, 9, 760), [0, 160, 760], [0, 1], (9,), ("a", "b"))
    network = Sequential((Dense(), jl.LIF(dt=1.0), Dense(), jl.LeakyIntegrator(dt=1.0)))
    params = (init_dense(KEY, 9, 7, gain=20.0), init_neurons(7), init_dense(KEY, 7, 2), jl.LeakyParams(tau_m=50.0))

    def voltage(spikes):
        return jl.simulate(network, params, jnp.asarray(spikes, float))[1].output.v

    logits = jnp.mean(jax.vmap(voltage)(events.dense(1.0)), axis=1, where=events.mask(1.0)[..., None])
    for i in range(2):
        alone = jnp.mean(voltage(sample(events, i).dense(1.0)[0]), axis=0)
        # The same numbers are added, those of a matrix product perhaps in another order.
        np.testing.assert_allclose(logits[i], alone, rtol=1e-13)
    assert not np.allclose(jnp.mean(voltage(events.dense(1.0)[0]), axis=0), logits[0], rtol=0.1)


@pytest.mark.parametrize("num_steps", [None, 7])
def test_dense_equals_a_loop(num_steps):
    """In whatever order the events are."""
    events = example()
    parts = zip(events.offsets[:-1], events.offsets[1:], strict=True)
    order = np.concatenate([RNG.permutation(np.arange(a, b)) for a, b in parts])
    mixed = Events(events.times[order], events.units[order], events.offsets, events.labels, events.shape)
    dense = events.dense(4.0, num_steps)
    expected = np.zeros_like(dense)
    for i in range(len(events)):
        part = slice(events.offsets[i], events.offsets[i + 1])
        for t, unit in zip(events.times[part], events.units[part], strict=True):
            if t // 4.0 < dense.shape[1]:
                expected[i, int(t // 4.0), unit] += 1
    np.testing.assert_array_equal(dense, expected)
    np.testing.assert_array_equal(mixed.dense(4.0, num_steps), expected)
    np.testing.assert_array_equal(mixed.mask(4.0, num_steps), events.mask(4.0, num_steps))
    assert dense.shape[1] == (num_steps or int(events.times.max() // 4.0) + 1)


def test_unsigned_numbers_of_64_bits_count_as_others(tmp_path):
    events = example()
    arrays = {name: getattr(events, name).astype(np.uint64) for name in ("units", "offsets", "labels")}
    np.savez(tmp_path / "u.npz", times=events.times, shape=events.shape, classes=events.classes, **arrays)
    np.testing.assert_array_equal(read_events(tmp_path / "u.npz").dense(1.0, 60), events.dense(1.0, 60))


def test_many_events_in_a_step_are_all_counted():
    events = Events(np.zeros(300), np.zeros(300, int), np.array([0, 300]), np.array([0]), (1,), ("x",))
    assert events.dense(1.0).tolist() == [[[300]]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": [0.0, -1.0, 2.0]}, "^times.1. = -1 ms: times must be 0 ms or more"),
        ({"times": [0.0, 1.0, np.inf]}, "^times.2. = inf ms: times must be finite"),
        ({"units": [0, 4, 0]}, "^units.1. = 4: units must be 0 to 3"),
        ({"units": [0, 0, -1]}, "^units.2. = -1: units must be 0 to 3"),
        ({"units": [0.0, 1.0, 2.0]}, "^units are float64: units must be integers"),
        ({"units": [0, 1]}, r"^units have shape \[2\]: they must be \[3\]"),
        ({"offsets": [0, 2, 2, 4]}, "^offsets must rise from 0 to 3"),
        ({"offsets": [0, 2, 1, 3]}, "^offsets must rise from 0 to 3"),
        ({"offsets": np.uint64([0, 2, 1, 3])}, "^offsets must rise from 0 to 3"),
        ({"labels": [0, 1, 2]}, "^labels.2. = 2: labels must lie between 0 and 1"),
        ({"labels": [0, -1, 1]}, "^labels.1. = -1: labels must lie between 0 and 1"),
        ({"labels": [0, 1]}, r"^labels have shape \[2\]: they must be \[3\]"),
        ({"shape": (0,)}, "^shape = 0: shape must be a whole number, 1 or more"),
        ({"shape": (-2, -2)}, "^shape = -2: shape must be a whole"),
        ({"shape": ((2, 2),)}, r"^shape have shape \[1, 2\]"),
        ({"offsets": [], "labels": []}, "^offsets must rise from 0 to 3"),
        ({"labels": [0, 0, 0]}, "^samples of class.1. = 0: every class must have one"),
    ],
)
def test_bad_events_are_refused(change, message):
    sound = {
        "times": [0.0, 1.0, 0.5],
        "units": [0, 3, 1],
        "offsets": [0, 2, 2, 3],
        "labels": [0, 1, 1],
        "shape": (4,),
        "classes": ("a", "b"),
    }
    Events(**sound)
    with pytest.raises(ValueError, match=message):
        Events(**sound | change)


GOOD = ([[0.0, 0.5], [0.25]], [[1, 2], [3]], [0, 1])


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((*GOOD,), {"leave_out": ("spikes/units",)}, "spikes/units is missing: needed are spikes/times, spikes/units"),
        ((*GOOD,), {"leave_out": ("labels",)}, "labels is missing"),
        (([[0.0], [0.25]], *GOOD[1:]), {}, "spikes/times and spikes/units must be as long for every sample"),
        ((*GOOD[:2], [0, 2]), {}, r"labels\[1\] = 2: labels must lie between 0 and 1"),
        ((*GOOD[:2], [0, 0]), {}, r"samples of class\[1\] = 0: every class must have one"),
        ((GOOD[0], [[1, 700], [3]], [0, 1]), {}, r"units\[1\] = 700: units must be 0 to 699"),
    ],
)
def test_bad_hdf5_is_refused_in_one_line(tmp_path, arguments, options, message):
    path = tmp_path / "bad.h5"
    write_shd(path, *arguments, **options)
    with pytest.raises(ValueError, match=f"^bad.h5: {message}") as caught:
        read_events(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "kind", "values", "message"),
    [
        ("spikes/units", np.float32, [1.9], "spikes/units .1. holds float32: a list of integers for each sample is"),
        (
            "spikes/units",
            np.uint64,
            [2**32 + 5],
            r"units\[0\] = 4.29497e\+09: units must be",
        ),
        ("spikes/times", np.complex64, [1j], "spikes/times .1. holds complex64: a list of real numbers"),
        ("labels", np.int64, 2**31, r"labels\[0\] = 2.14748e\+09: labels must lie between 0 and 0"),
        ("labels", np.float32, 0.0, "labels are float32: labels must be integers"),
    ],
)
def test_hdf5_numbers_that_would_wrap_or_be_cut_are_refused(tmp_path, name, kind, values, message):
    path = tmp_path / "bad.h5"
    write_shd(path, [[0.5]], [[3]], [0], keys=(b"zero",))
    with h5py.File(path, "a") as file:
        del file[name], file["extra/keys"]
        file.create_dataset(name, (1,), dtype=kind if name == "labels" else h5py.vlen_dtype(kind))[0] = values
    with pytest.raises(ValueError, match=f"^bad.h5: {message}"):
        read_events(path)


def test_hdf5_of_another_file_or_never_written_is_refused(tmp_path):
    path = tmp_path / "bad.h5"
    for message, damage in {
        "labels is a link to /x in another file": lambda file: file.__setitem__("labels", h5py.ExternalLink("a", "/x")),
        "the data of labels lie in another file": lambda file: file.create_dataset(
            "labels", (1,), "i8", external=[("/etc/hostname", 0, 8)]
        ),
        r"labels \[1000000000000\] should have 8000000000000 bytes, and 0 are": lambda file: file.create_dataset(
            "labels", (10**12,), "i8"
        ),
    }.items():
        write_shd(path, [[0.5]], [[3]], [0], leave_out=("labels",))
        with h5py.File(path, "a") as file:
            damage(file)
        with pytest.raises(ValueError, match=f"^bad.h5: {message}"):
            read_events(path)


def test_a_heap_in_which_hdf5_would_go_round_for_ever(tmp_path):
    path = tmp_path / "bad.h5"
    write_shd(path, [[0.5]], [[3]], [0], keys=(b"zero",))
    assert len(read_events(path)) == 1
    raw = path.read_bytes()
    start = raw.index(b"GCOL") + 16
    for size in (0, 2**40):
        path.write_bytes(raw[:start] + bytes(8) + size.to_bytes(8, "little") + raw[start + 16 :])
        with pytest.raises(
            ValueError, match=f"^bad.h5: a damaged HDF5 file, .* an object of {size} bytes in the heap at"
        ):
            read_events(path)


def test_counts_beyond_memory_are_refused():
    with pytest.raises(ValueError, match="units would need .* GB: "):
        example().dense(1.0, 10**12)


def test_bad_folders_are_refused(tmp_path):
    pytest.importorskip("tonic")
    with pytest.raises(ValueError, match="it has 0 folders, one for each class"):
        read_events(tmp_path)
    write_bin(tmp_path / "0" / "a.bin", [3], [4], [1], [5])
    (tmp_path / "1").mkdir()
    with pytest.raises(ValueError, match=r"samples of class\[1\] = 0"):
        read_events(tmp_path)
    (tmp_path / "1" / "b.bin").write_bytes(b"1234567")
    with pytest.raises(ValueError, match="1/b.bin is no file of events of 5 bytes, or was cut short"):
        read_events(tmp_path)
    write_bin(tmp_path / "1" / "b.bin", [3, 34], [4, 4], [1, 0], [5, 6])
    with pytest.raises(ValueError, match=r"1/b.bin: x\[1\] = 34: x must be 0 to 33"):
        read_events(tmp_path)
    with pytest.raises(ValueError, match=r"shape = \[40\] three axes"):
        read_events(tmp_path, shape=(40,))
    assert len(read_events(tmp_path, shape=(2, 34, 35))) == 2


def test_other_bad_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_events(tmp_path / "nothing.h5")
    for name, message in {
        "a.h5": "not an HDF5 file",
        "a.npz": "not an .npz archive",
        "a.mat": "'.mat' is not known",
    }.items():
        (tmp_path / name).write_text("neither")
        with pytest.raises(ValueError, match=f"^{name}: .*{message}"):
            read_events(tmp_path / name)
    np.savez(tmp_path / "part.npz", times=np.zeros(1), units=np.zeros(1, int))
    with pytest.raises(ValueError, match="^part.npz: the array `offsets` is missing"):
        read_events(tmp_path / "part.npz")
    binned = {"spikes": np.zeros((2, 3, 4)), "labels": np.array([0, 1]), "dt": 1.0}
    np.savez(tmp_path / "binned.npz", **binned)
    with pytest.raises(ValueError, match="^binned.npz: the array `times` is missing: needed are times, units"):
        read_events(tmp_path / "binned.npz")
    np.savez(tmp_path / "words.npz", times=[0.0], units=[0], offsets=[0, 1], labels=["a"], shape=[1])
    with pytest.raises(ValueError, match="^words.npz: labels are <U1: labels must be integers"):
        read_events(tmp_path / "words.npz")


def test_nothing_is_unpickled(tmp_path):
    np.savez(tmp_path / "p.npz", times=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="^p.npz: the array `times` cannot be read; only plain numeric and text"):
        read_events(tmp_path / "p.npz")


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    write_shd(tmp_path / "a.h5", *GOOD)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r'^HDF5 files need the package h5py: pip install "jaxlif\[snn\]"$'):
        read_events(tmp_path / "a.h5")
    monkeypatch.setitem(sys.modules, "tonic.io", None)
    with pytest.raises(ImportError, match=r'^N-MNIST needs the package tonic: pip install "jaxlif\[events\]"$'):
        read_events(tmp_path)


@pytest.mark.parametrize(
    ("dt", "num_steps", "message"),
    [
        (0.0, None, "^dt = 0 ms"),
        (1.0, 0, "^num_steps = 0"),
        (1.0, 2.5, "^num_steps = 2.5"),
        ("1", None, "^dt = '1'"),
        (1e-300, None, "^dt = 1e-300 ms: the last event lies 2.31 steps or more away"),
    ],
)
def test_bad_grids_are_refused(dt, num_steps, message):
    for bin_events in (example().dense, example().mask):
        with pytest.raises(ValueError, match=message):
            bin_events(dt, num_steps)


@pytest.mark.parametrize("classes", ["ab", {}, None])
def test_names_of_classes_are_several(classes):
    with pytest.raises(ValueError, match=f"^classes is {type(classes).__name__}: it must be a tuple of names"):
        Events(np.zeros(2), np.zeros(2, int), np.array([0, 1, 2]), np.array([0, 1]), shape=(1,), classes=classes)


def test_names_of_classes_may_be_numpys():
    names = np.array(["a", "b"])
    events = Events(np.zeros(2), np.zeros(2, int), np.array([0, 1, 2]), np.array([0, 1]), shape=(1,), classes=names)
    assert events.classes == ("a", "b")
