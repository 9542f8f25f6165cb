"""Spikes by their rise and fall: a Hodgkin-Huxley neuron under all that an amplifier adds, and what is no spike."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxlif.recordings import Recording, SpikeRule
from jaxlif.recordings.rises import NEIGHBOUR, _lowest, apart_from, level_of
from jaxlif.recordings.spikes import detect_spikes, no_spikes, spike_notes
from jaxlif.simulated import simulated_recording

DT, DURATION = 0.1, 3000.0
RATES = [0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0]  # ms


@pytest.fixture(scope="module")
def cell():
    """Voltage [30000] of a regular-spiking neuron, and the times of its spikes by the upward crossing of 0 mV, ms."""
    v = simulated_recording(jax.random.key(3), repeats=1, duration=DURATION, dt=DT, recording_noise=0.0).voltage[0]
    crossings = np.flatnonzero((v[1:] >= 0.0) & (v[:-1] < 0.0)) + 1
    assert 20 < crossings.size < 60
    return v, DT * crossings


def sampled(v, dt):
    return np.interp(np.arange(0.0, DURATION - 1.0, dt), DT * np.arange(v.size), v)


def noise(sd, size, seed=0):
    return sd * np.random.default_rng(seed).standard_normal(size)


def found(v, dt, **rule):
    return dt * np.flatnonzero(detect_spikes(v, dt, **rule))


@pytest.mark.parametrize("dt", RATES)
@pytest.mark.parametrize("sd", [0.02, 1.0])
def test_the_spikes_and_their_times_are_those_that_cross_0_mv(cell, dt, sd):
    """The rise from foot to peak takes half a ms: where in it a spike is marked moves by less, and a sample."""
    v = sampled(cell[0], dt)
    hum = 2.0 * np.sin(2e-3 * np.pi * 50.0 * dt * np.arange(v.size))
    times = found(v + hum + noise(sd, v.size), dt)
    assert times.size == cell[1].size
    np.testing.assert_allclose(times, cell[1], atol=0.3 + dt)


@pytest.mark.parametrize("dt", [0.02, 0.1, 0.5])
def test_no_voltage_is_special(cell, dt):
    """Spikes that stop at -10 mV, and any that an offset moves, have the times of the others."""
    v = sampled(cell[0], dt)
    low = -75.0 + (v + 75.0) * 65.0 / (v.max() + 75.0)
    assert low.max() == pytest.approx(-10.0)
    times = found(v, dt)
    for changed in (low, v - 25.0, v + 40.0):
        np.testing.assert_allclose(
            found(changed + noise(0.2, v.size), dt), times, atol=0.05 + dt
        )  # the noise moves a crossing


@pytest.mark.parametrize("dt", RATES[:5])
@pytest.mark.parametrize("samples", [1, 3])
def test_artefacts_are_no_spikes(cell, dt, samples):
    """Of 100 mV up or down for one to three samples, 50 of them between the spikes and not nearer than 8 ms."""
    v, random = sampled(cell[0], dt), np.random.default_rng(1)
    free = [t for t in random.uniform(10.0, DURATION - 20.0, 400) if np.abs(cell[1] - t).min() > 8.0][:50]
    signs = random.choice([-1.0, 1.0], len(free))
    for t, sign in zip(free, signs, strict=True):
        n = round(t / dt)
        v[n : n + samples] += 100.0 * sign
    noisy = v + noise(0.2, v.size)
    np.testing.assert_allclose(found(noisy, dt), cell[1], atol=0.3 + dt)
    note = spike_notes(Recording(np.zeros(v.size), noisy, dt=dt), SpikeRule())[0]
    # Those that follow at once on another one are one peak with it.
    assert 0.8 * (signs > 0).sum() <= int(note.split()[0]) <= len(free) and "artefacts, not counted" in note


@pytest.mark.parametrize("dt", RATES)
@pytest.mark.parametrize("sd", [0.02, 0.2, 1.0])
def test_noise_and_hum_have_no_spikes(dt, sd):
    for seed in range(5):
        v = -65.0 + noise(sd, round(2000 / dt), seed)
        hum = 2.0 * np.sin(2e-3 * np.pi * 50.0 * dt * np.arange(v.size))
        assert not found(v, dt).size and not found(v + hum, dt).size


def membrane(current, dt, tau=10.0, r_m=0.1):
    from scipy.signal import lfilter

    decay = np.exp(-dt / tau)
    return -70.0 + lfilter([(1.0 - decay) * r_m], [1.0, -decay], current)


@pytest.mark.parametrize("dt", [0.02, 0.1])
def test_a_membrane_under_steps_has_none_whatever_they_leave_in_the_electrode(dt):
    """Steps of 50 to 400 pA with 30 MΩ in series, and a capacitive transient of 50 mV that decays within 0.2 ms."""
    t = dt * np.arange(round(3000 / dt))
    levels = np.array([-100.0, 50.0, 100.0, 200.0, 300.0, 400.0])
    current = np.where((t % 500 > 100) & (t % 500 < 300), levels[(t // 500).astype(int)], 0.0)
    edges = np.diff(current, prepend=0.0)
    kernel = np.exp(-dt * np.arange(round(3 / dt)) / 0.2)
    transient = np.convolve(np.sign(edges), kernel)[: t.size]
    for extra in (0.03 * current, 50.0 * transient, -50.0 * transient):
        assert not found(membrane(current, dt) + extra + noise(0.2, t.size), dt).size


def test_fluctuations_of_a_driven_membrane_are_no_group_and_no_spikes():
    """Their peaks become rarer with their size; a group of spikes among them is told apart."""
    random = np.random.default_rng(0)
    sizes = random.exponential(0.25, 5000)
    assert (sizes >= 1.0).sum() > 50  # by a fixed level
    assert (sizes >= apart_from(sizes)).sum() == 0
    spikes = random.normal(6.0, 0.5, 300)
    factor = apart_from(np.append(sizes, spikes))
    assert (spikes >= factor).all() and (sizes >= factor).sum() < 0.5 * spikes.size
    assert apart_from(spikes) == apart_from(np.zeros(0)) == 1.0


def test_the_level_lies_in_the_widest_gap():
    assert level_of(np.array([12.0, 13.0, 200.0, 220.0, 180.0])) == pytest.approx(np.sqrt(13.0 * 220.0 / 3.0))
    assert level_of(np.linspace(11.0, 90.0, 40)) == 10.0  # no gap by a factor of 1.5
    assert level_of(np.array([60.0, 80.0])) == pytest.approx(np.sqrt(10.0 * 80.0 / 3.0))
    assert level_of(np.zeros(0)) == 10.0


def test_plateaus_are_none_and_are_said(cell):
    """A plateau at -5 mV for 500 ms, into which the voltage jumps by 60 mV in 2 ms."""
    v = cell[0] + noise(0.1, cell[0].size)
    part = slice(15_000, 20_000)
    v[part] = -5.0 + noise(0.2, 5000)
    v[14_980:15_000] = np.linspace(v[14_979], -5.0, 20)
    v[20_000:20_020] = np.linspace(-5.0, v[20_020], 20)
    outside = cell[1][(cell[1] < 1497.0) | (cell[1] > 2003.0)]
    np.testing.assert_allclose(found(v, DT), outside, atol=0.3 + DT)
    assert any(
        "plateaus are not counted" in note for note in spike_notes(Recording(np.zeros(v.size), v, dt=DT), SpikeRule())
    )


def test_spikes_drawn_for_a_sample_are_told_from_artefacts():
    """From -50 to 20 mV for one sample, then -65; peaks at exactly 20 mV; and the same on top of what was there."""
    drawn = np.arange(4000) % 200 == 199
    v = np.tile(np.linspace(-65.0, -50.0, 200), 20)
    where = np.flatnonzero(drawn)[:-1]  # the last is not over
    for known in (np.where(drawn, 20.0, v) + noise(0.1, 4000), np.where(drawn, 20.0, -60.0 + noise(0.1, 4000))):
        np.testing.assert_array_equal(np.flatnonzero(detect_spikes(known, DT)), where)
    artefacts = -60.0 + noise(0.1, 4000) + 80.0 * drawn
    assert not detect_spikes(artefacts, DT).any()


def test_a_count_that_depends_on_the_rule_is_said(cell):
    """Twenty spikes of a cell that goes into block, each lower than the one before, from 90 to 6 mV."""
    v = np.full(20_000, -60.0)
    shape = np.concatenate([np.linspace(0.0, 1.0, 6), np.linspace(0.9, 0.0, 12)])
    for n, size in enumerate(np.geomspace(90.0, 6.0, 20)):
        v[500 + 900 * n : 518 + 900 * n] += size * shape
    note = spike_notes(Recording(np.zeros(v.size), v, dt=DT), SpikeRule())[0]
    assert note.startswith("the count depends on the rule") and "--spike-height" in note
    counts = [int(word) for word in note.replace(",", "").replace(";", "").split() if word.isdigit()]
    own = int(detect_spikes(v, DT).sum())
    assert own in counts and (v.max() > 0.0) and 5 < own < 19
    whole = cell[0] + noise(0.1, cell[0].size)
    assert spike_notes(Recording(np.zeros(whole.size), whole, dt=DT), SpikeRule()) == ()
    low = -75.0 + (whole + 75.0) * 65.0 / (whole.max() + 75.0)
    (note,) = spike_notes(Recording(np.zeros(low.size), low, dt=DT), SpikeRule())
    assert note.startswith(f"the {cell[1].size} spikes are found by their rise") and "none crosses 0 mV" in note


def test_low_peaks_are_refused_with_the_option_that_counts_them():
    """A membrane under pulses of 2 ms, the largest of which end at -37 mV."""
    t = DT * np.arange(10_000)
    v = membrane(np.where(t % 100 < 2.0, 1800.0, 0.0), DT) + noise(0.1, t.size)
    recording = Recording(np.zeros(v.size), v, dt=DT)
    assert not detect_spikes(v, DT).any()
    assert "none ends above -20 mV: --spike-threshold counts them" in no_spikes(recording, SpikeRule())
    assert detect_spikes(v, DT, threshold=-45.0).sum() > 5


def test_the_rule_of_a_recording_finds_the_same_in_parts_of_it(cell):
    v = np.stack([cell[0] + noise(0.1, cell[0].size), -65.0 + noise(0.1, cell[0].size)])
    recording = Recording(np.zeros(v.shape), v, dt=DT)
    rule = SpikeRule().found_in(recording)
    assert rule.slope > 10.0 and rule.found_in(recording) == rule
    raster = rule.find(recording)
    np.testing.assert_array_equal(raster, SpikeRule().find(recording))
    np.testing.assert_array_equal(rule.find(recording.select([0]))[0], raster[0])
    random = np.random.default_rng(0)
    for seed in range(20):  # where there are peaks of every size, and the found levels make a difference
        walk = -60.0 + 50.0 * np.sin(0.1 * random.standard_normal(3000).cumsum())
        part = Recording(np.zeros(3000), walk, dt=(0.1, 0.5, 1.0)[seed % 3])
        np.testing.assert_array_equal(SpikeRule().found_in(part).find(part), SpikeRule().find(part))
    fixed = SpikeRule(threshold=-20.0)
    assert fixed.found_in(recording) == fixed
    assert rule.found_in(replace(recording, spikes=raster)) == rule


def test_the_foot_comes_before_the_crossing(cell):
    v = cell[0]
    crossing, foot = found(v, DT), found(v, DT, method="dvdt")
    assert foot.size == crossing.size and (foot <= crossing).all() and 0.1 < np.mean(crossing - foot) < 1.0


def test_the_lowest_of_a_window_by_a_plain_loop():
    x = noise(1.0, 60)
    for before, after in [(0, 0), (0, 3), (3, 0), (2, 5), (7, 1)]:
        expected = [x[max(n - before, 0) : n + after + 1].min() for n in range(x.size)]
        np.testing.assert_array_equal(_lowest(x, before, after), expected)
    assert NEIGHBOUR > 1.0
