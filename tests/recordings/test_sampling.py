"""How a current was sampled, against membranes integrated on a grid a hundred times as fine."""

import numpy as np
import pytest

import jaxlif as jl
from jaxlif.recordings import estimate_electrode, held_current, is_sampled, sampling_notes

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
    assert "taken to be sampled" in sampling_notes(recording("sampled"), True)[0]
    assert sampling_notes(recording("sampled", "recorded"), True) == ()
    assert sampling_notes(recording("held"), False) == ()


def test_a_fit_predicts_a_stimulus_without_voltage_as_the_recording_was_understood(data_folder):
    one = jl.read_recording(data_folder / "recordings" / "qsnmc2007_a.npz").select(slice(0, 2)).window(0.0, 8000.0)
    fit = jl.fit_recording(one)
    assert fit.data["current_sampled"]
    stimulus = jl.Recording(current=one.current, dt=one.dt)
    np.testing.assert_array_equal(fit.predict(stimulus).spike_time, fit.predict(one).spike_time)
