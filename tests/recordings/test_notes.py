"""What a recording says of itself: jumps and peaks at the steps of a current, and what is none."""

import numpy as np
import pytest

from jaxlif.recordings import Recording, detect_spikes, notes_on

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


def test_peaks_that_were_taken_for_spikes_are_counted():
    [note] = notes(steps(peak=40.0))
    assert note.startswith("3 of 3 spikes come within 0.3 ms of a step of the current")


def test_a_current_without_steps_has_none():
    noise = np.random.default_rng(0).normal(0.0, 100.0, (1, 3000))
    voltage = -70.0 + 0.01 * noise
    assert notes_on(Recording(current=noise, voltage=voltage, dt=DT), np.zeros((1, 3000), bool)) == ()
