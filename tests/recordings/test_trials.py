"""Sweeps that were padded, and trials that were stored several times."""

import numpy as np
import pytest

from jaxlif.fitting.scores import spike_scores
from jaxlif.recordings import Recording, copies, copy_notes, padding, without_padding

T = 1000
NOISE = np.random.default_rng(0).normal(-60.0, 0.2, (4, T))


def recording(voltage):
    return Recording(current=np.zeros(voltage.shape), voltage=voltage, dt=0.1)


def padded(*ends, value=0.0):
    """Sweeps of noise that end at these samples, then 0 mV or, with None, the last value."""
    voltage = NOISE[: len(ends)].copy()
    for v, end in zip(voltage, ends, strict=True):
        v[end:] = v[end - 1] if value is None else value
    return voltage


@pytest.mark.parametrize("value", [0.0, None])
def test_padding_is_found_whatever_fills_it(value):
    assert padding(recording(padded(T, 700, 900, T, value=value))).tolist() == [T, 700, 900, T]


def test_a_jump_to_0_mv_at_the_end_is_padding_and_a_spike_cut_off_there_is_none():
    voltage = padded(T, 997, 900, T)
    voltage[1:3, 900:] += 0.1 * NOISE[0, 900:] + 6.0  # about 0 mV, with noise
    voltage[1, 900:997] = NOISE[1, 900:997]
    voltage[3, -4:] = [-40.0, -10.0, 1.0, 20.0]
    assert padding(recording(voltage)).tolist() == [T, 997, 900, T]


@pytest.mark.parametrize(
    "voltage",
    [
        np.round(NOISE * 10) / 10,  # coarsely stored: runs of one value everywhere
        np.where(np.arange(T) < 100, NOISE, -60.0),  # a model that has come to rest, as it had
        np.tile(np.where(np.arange(T) % 500 < 440, -60.0, 0.0), (4, 1)),  # 0 mV is where it is held at other times too
        np.full((4, T), -60.0),
    ],
    ids=["quantised", "at rest", "held at 0", "constant"],
)
def test_what_stays_at_one_value_of_itself_is_no_padding(voltage):
    if voltage[0, 0] != voltage[0, 50]:
        voltage = np.concatenate([voltage[:, ::-1], voltage], axis=1)
    assert (padding(recording(voltage)) == voltage.shape[1]).all()


def test_padded_sweeps_are_refused_or_cut_where_all_are():
    some = recording(padded(T, 700, T, 900))
    with pytest.raises(
        ValueError, match=r"voltage stays at 0 mV from 70 ms to the end in sweep 1 \(2 of 4 .*--sweeps 0,2$"
    ):
        without_padding(some)
    cut, (note,) = without_padding(recording(padded(700, 800)))
    assert cut.num_steps == 700 and "padded, the first from 70 ms on" in note
    np.testing.assert_array_equal(cut.voltage, NOISE[:2, :700])
    whole = recording(NOISE)
    assert without_padding(whole) == (whole, ())


def test_copies_are_found_and_counted_once_in_the_reliability():
    """Two trials of which one is stored three times more: the mean over six pairs would make them reliable."""
    times = [np.arange(50, T, 100), np.arange(90, T, 90)]
    spikes = np.zeros((5, T), bool)
    spikes[[0, 2, 3, 4], :] = np.isin(np.arange(T), times[0])
    spikes[1, times[1]] = True
    cell = recording(NOISE[[0, 1, 0, 0, 0]])
    assert copies(cell).tolist() == [0, 1, 0, 0, 0] and copies(Recording(np.zeros((2, 9)), dt=1.0)).tolist() == [0, 1]
    alone = spike_scores(recording(NOISE[:2]), spikes[:2], spikes[:2])
    assert spike_scores(cell, spikes, spikes)["reliability"] == alone["reliability"] < 0.9
    # A trial and its copies say nothing at all of how well the cell repeats itself.
    assert spike_scores(recording(NOISE[[0, 0]]), spikes[[0, 2]], spikes[[0, 2]])["reliability"] is None
    (note,) = copy_notes(cell, np.zeros(0, int))
    assert note.startswith("3 of 5 sweeps have the voltage of an earlier one in every sample (sweep 2 that of 0)")
    (note,) = copy_notes(cell, np.array([3]))
    assert note.endswith("sweep 3, which was held out, is the copy of one that was fitted, and no test")
    assert copy_notes(recording(NOISE), np.array([3])) == ()
