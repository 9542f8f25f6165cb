"""What a recording shows: jumps and peaks at steps; a current sampled or held, on a finer grid; padding and copies."""

import numpy as np
import pytest
from scipy.signal import lfilter

import jaxlif as jl
from jaxlif.fitting.scores import spike_scores
from jaxlif.recordings import Recording, estimate_electrode
from jaxlif.recordings.notes import (
    copies,
    held_current,
    is_sampled,
    notes_on,
    padding,
    resting_potentials,
    without_padding,
)
from jaxlif.recordings.spikes import detect_spikes

DT = 0.05
LEVELS = np.array([-100.0, 100.0, 300.0])


def steps(resistance=0.0, peak=None, spike_after=None):
    """A membrane of 10 ms and 0.1 GΩ under 50 ms steps, with a series resistance, a peak at the onset, or a spike."""
    t = DT * np.arange(1, 3001)
    on = (t > 50.0) & (t <= 100.0)
    current = LEVELS[:, None] * on
    rise = np.where(t > 50.0, 1.0 - np.exp(-np.maximum(t - 50.0, 0.0) / 10.0), 0.0)
    fall = np.where(t > 100.0, 1.0 - np.exp(-np.maximum(t - 100.0, 0.0) / 10.0), 0.0)
    voltage = -70.0 + 0.1 * LEVELS[:, None] * (rise - fall) + resistance * current
    if peak is not None:
        voltage[:, 1000:1002] = peak
    if spike_after is not None:
        first = 1000 + round(spike_after / DT)
        voltage[:, first : first + 20] = 30.0
    return Recording(current=current, voltage=voltage, dt=DT)


def notes(recording):
    return notes_on(recording, detect_spikes(recording.voltage, DT))


def test_a_membrane_and_its_spikes_are_no_artefacts():
    assert notes(steps()) == ()
    assert notes(steps(spike_after=5.0)) == ()
    # A spike that happens to start at a step lasts longer than an artefact.
    assert not any("spikes come within" in note for note in notes(steps(spike_after=0.1)))


def test_an_uncompensated_electrode_is_told_with_its_resistance():
    [note] = notes(steps(resistance=0.03))
    # 30 MΩ, and 0.3 ms of a membrane of 10 ms and 100 MΩ: 3 MΩ more.
    assert float(note.split("(")[1].split(" MΩ")[0]) == pytest.approx(30.0 + 100.0 * (1.0 - np.exp(-0.03)), rel=0.01)


def test_spikes_that_meet_the_steps_are_no_electrode():
    """A cell that fires by itself, at every step as high as the last time."""
    recording = steps()
    voltage, spikes = np.array(recording.voltage), np.zeros(recording.current.shape, bool)
    for edge in (1000, 2000):
        voltage[:, edge - 20 : edge + 4] += np.linspace(80.0, 0.0, 24)
        spikes[:, edge - 20] = True
    assert not any("jumps" in note for note in notes_on(Recording(recording.current, voltage, dt=DT), spikes))


def test_peaks_that_were_taken_for_spikes_are_counted():
    [note] = notes(steps(peak=40.0))
    assert note.startswith("3 of 3 spikes come within 0.3 ms of a step of the current")


def test_a_current_without_steps_has_none():
    noise = np.random.default_rng(0).normal(0.0, 100.0, (1, 3000))
    voltage = -70.0 + 0.01 * noise
    assert notes_on(Recording(current=noise, voltage=voltage, dt=DT), np.zeros((1, 3000), bool)) == ()


@pytest.mark.parametrize("shift", [-5.0, -2.5, 0.0, 2.5, 5.0])
@pytest.mark.parametrize("noisy", [False, True])
def test_a_current_that_is_shifted_against_the_voltage_is_said(noisy, shift):
    """By whole samples of a membrane's own voltage with noise: steps, and a current that changes all the time."""
    random = np.random.default_rng(1)
    if noisy:
        kept, current = np.exp(-0.1 / 5.0), 50.0 * random.normal(size=(1, 20_000))
        current, _ = lfilter([np.sqrt(1.0 - kept**2)], [1.0, -kept], current, axis=1, zi=np.zeros((1, 1)))
    else:
        current = np.zeros((6, 4000))
        current[:, 1000:3000] = np.array([-100.0, -50.0, 50.0, 75.0, 100.0, 125.0])[:, None]
    kept = np.exp(-0.1 / 15.0)
    driven = lfilter([1.0 - kept], [1.0, -kept], current, axis=1)
    voltage = -70.0 + 0.15 * driven + random.normal(0.0, 0.2, current.shape)
    recording = Recording(current=np.roll(current, round(-shift / 0.1), axis=1), voltage=voltage, dt=0.1)
    found = [note for note in notes_on(recording, np.zeros(current.shape, bool)) if "comes" in note]
    if not shift:
        assert found == []
    else:
        side = "after" if shift > 0 else "before"
        assert found[0].startswith(f"the voltage comes {abs(shift):g} ms {side} the current that drives it")


def test_a_voltage_that_is_filtered_is_not_late():
    """A low-pass of 0.4 ms, and an electrode's drop, leave a membrane at its time."""
    recording = steps(resistance=0.02)
    kept = np.exp(-DT / 0.4)
    voltage = lfilter([1.0 - kept], [1.0, -kept], recording.voltage + 70.0, axis=1) - 70.0
    voltage += np.random.default_rng(0).normal(0.0, 0.1, voltage.shape)
    silent = np.zeros(voltage.shape, bool)
    assert not any("comes" in note for note in notes_on(Recording(recording.current, voltage, dt=DT), silent))


@pytest.mark.parametrize(("quiet", "known"), [(100.0, True), (89.0, False)])
def test_a_rest_is_known_from_100_ms_without_current(quiet, known):
    """To the sample, however large or small the steps are: the mean over 10 ms sees the larger sooner."""
    current = np.where(np.arange(4000) * 0.1 >= quiet, np.array([[-100.0], [10.0], [300.0]]), 0.0)
    voltage = np.array([[-70.0], [-69.0], [-68.0]]) + 0.1 * current
    rest = resting_potentials(Recording(current, voltage, dt=0.1), np.zeros(current.shape, bool))
    if not known:
        assert rest is None
    else:
        np.testing.assert_allclose(rest, [-70.0, -69.0, -68.0], atol=1e-9)


# --- a current sampled or held ----------------------------------------------------------------------------

TAU, R_M, R_S, FINE = 20.0, 0.1, 0.02, 100  # ms, GΩ, GΩ, steps in one of 1 ms


def recording(kind, source="unknown", series=0.0):
    """Return a membrane under a noise that is held over each step, or on its way from sample to sample."""
    rng = np.random.default_rng(0)
    current = 100.0 * np.convolve(rng.standard_normal(40_003), np.full(4, 0.5), mode="valid")
    before = np.concatenate([current[:1], current[:-1]])
    v, voltage, decay = 0.0, np.zeros(len(current)), np.exp(-1.0 / (FINE * TAU))
    ramp = (np.arange(FINE) + 0.5) / FINE if kind == "sampled" else np.ones(FINE)
    weights = (1.0 - decay) * R_M * decay ** np.arange(FINE)[::-1]
    for n, (a, b) in enumerate(zip(before, current, strict=True)):
        v = decay**FINE * v + float(weights @ (a + ramp * (b - a)))
        voltage[n] = v
    return jl.Recording(current=current, voltage=voltage - 65.0 + series * current, dt=1.0, current_source=source)


@pytest.mark.parametrize("series", [0.0, R_S])
def test_the_voltage_says_that_a_current_was_sampled(series):
    assert is_sampled(recording("sampled", series=series))


def test_a_held_current_is_seen_and_a_command_is_held():
    assert not is_sampled(recording("held"))
    assert not is_sampled(recording("sampled", "commanded"))
    assert is_sampled(recording("held", "recorded")), "a measured current is a sample whatever the voltage says"
    one = recording("sampled")
    assert not is_sampled(jl.Recording(current=one.current, voltage=one.voltage, dt=0.1)), "too fine to matter"


@pytest.mark.parametrize(("kind", "source"), [("sampled", "recorded"), ("held", "commanded")])
def test_the_electrode_is_found_either_way(kind, source):
    found = estimate_electrode(recording(kind, source, R_S)).resistance
    # The trapezoid of one step of 1 ms in 20 is right to a thousandth of the membrane's share, 0.1 GΩ / 20.
    assert found == pytest.approx(R_S, abs=1e-4)


def test_the_mean_over_a_step_gives_the_membrane_back():
    one = held_current(recording("sampled"), sampled=True)
    rest = np.stack([one.voltage[0, :-1], one.current[0, 1:], np.ones(one.num_steps - 1)], axis=1)
    decay, gain, _ = np.linalg.lstsq(rest, one.voltage[0, 1:], rcond=None)[0]
    # A ramp against its mean: a relative error of (1 / 20)² / 12 at most.
    assert -1.0 / np.log(decay) == pytest.approx(TAU, rel=2e-3) and gain / (1.0 - decay) == pytest.approx(R_M, rel=2e-3)


def test_only_an_unknown_source_needs_a_note():
    for kind, source, said in (("sampled", "unknown", 1), ("sampled", "recorded", 0), ("held", "unknown", 0)):
        found = notes_on(one := recording(kind, source), np.zeros(one.current.shape, bool))
        assert sum("taken to be sampled with the voltage" in note for note in found) == said


def test_a_fit_predicts_a_stimulus_without_voltage_as_the_recording_was_understood(data_folder):
    one = jl.read_recording(data_folder / "recordings" / "qsnmc2007_a.npz").select(slice(0, 2)).window(0.0, 8000.0)
    fit = jl.fit_recording(one)
    assert fit.data["current_sampled"]
    stimulus = jl.Recording(current=one.current, dt=one.dt)
    np.testing.assert_array_equal(fit.predict(stimulus).spike_time, fit.predict(one).spike_time)


# --- padding and copies ----------------------------------------------------------------------------------

T = 1000
NOISE = np.random.default_rng(0).normal(-60.0, 0.2, (4, T))


def trials(voltage):
    return Recording(current=np.zeros(voltage.shape), voltage=voltage, dt=0.1)


def notes_of_copies(cell, held=()):
    found = notes_on(cell, np.zeros(cell.current.shape, bool), held=held)
    return [note for note in found if "the voltage of an earlier one" in note]


def padded(*ends, value=0.0):
    """Sweeps of noise that end at these samples, then 0 mV or, with None, the last value."""
    voltage = NOISE[: len(ends)].copy()
    for v, end in zip(voltage, ends, strict=True):
        v[end:] = v[end - 1] if value is None else value
    return voltage


@pytest.mark.parametrize("value", [0.0, None])
def test_padding_is_found_whatever_fills_it(value):
    assert padding(trials(padded(T, 700, 900, T, value=value))).tolist() == [T, 700, 900, T]


def test_a_jump_to_0_mv_at_the_end_is_padding_and_a_spike_cut_off_there_is_none():
    voltage = padded(T, 997, 900, T)
    voltage[1:3, 900:] += 0.1 * NOISE[0, 900:] + 6.0  # about 0 mV, with noise
    voltage[1, 900:997] = NOISE[1, 900:997]
    voltage[3, -4:] = [-40.0, -10.0, 1.0, 20.0]
    assert padding(trials(voltage)).tolist() == [T, 997, 900, T]


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
    assert (padding(trials(voltage)) == voltage.shape[1]).all()


def test_padded_sweeps_are_refused_or_cut_where_all_are():
    some = trials(padded(T, 700, T, 900))
    with pytest.raises(
        ValueError, match=r"voltage stays at 0 mV from 70 ms to the end in sweep 1 \(2 of 4 .*--sweeps 0,2$"
    ):
        without_padding(some)
    cut, (note,) = without_padding(trials(padded(700, 800)))
    assert cut.num_steps == 700 and "padded, the first from 70 ms on" in note
    np.testing.assert_array_equal(cut.voltage, NOISE[:2, :700])
    whole = trials(NOISE)
    assert without_padding(whole) == (whole, ())


def test_copies_are_found_and_counted_once_in_the_reliability():
    """Two trials of which one is stored three times more: the mean over six pairs would make them reliable."""
    times = [np.arange(50, T, 100), np.arange(90, T, 90)]
    spikes = np.zeros((5, T), bool)
    spikes[[0, 2, 3, 4], :] = np.isin(np.arange(T), times[0])
    spikes[1, times[1]] = True
    cell = trials(NOISE[[0, 1, 0, 0, 0]])
    assert copies(cell).tolist() == [0, 1, 0, 0, 0] and copies(Recording(np.zeros((2, 9)), dt=1.0)).tolist() == [0, 1]
    alone = spike_scores(trials(NOISE[:2]), spikes[:2], spikes[:2])
    assert spike_scores(cell, spikes, spikes)["reliability"] == alone["reliability"] < 0.9
    # A trial and its copies say nothing at all of how well the cell repeats itself.
    assert spike_scores(trials(NOISE[[0, 0]]), spikes[[0, 2]], spikes[[0, 2]])["reliability"] is None
    (note,) = notes_of_copies(cell)
    assert note.startswith("3 of 5 sweeps have the voltage of an earlier one in every sample (sweep 2 that of 0)")
    (note,) = notes_of_copies(cell, [3])
    assert note.endswith("sweep 3, held out, is the copy of one that was fitted, and no test")
    assert notes_of_copies(trials(NOISE), [3]) == []
