"""What two experiments compute before they train: a cochlea against closed forms, starting values against a filter."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.signal import freqz_sos, lfilter

from jaxlif.networks import init_dense


def load(name):
    path = Path(__file__).resolve().parent.parent / "experiments" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ear, start = load("cochlea"), load("resonant_start")
RATE = 8000.0
TAU = np.array([2.0, 8.0, 30.0])
SPIKES = (np.random.default_rng(0).random((6, 300, 4)) < 0.1).astype(float)


@pytest.mark.parametrize(("frequency", "rate"), [(100.0, 8000.0), (1000.0, 8000.0), (100.0, 48000.0)])
def test_the_filter_is_a_fourth_order_gammatone(frequency, rate):
    """Gain 1 at its frequency, and near it |H| = (1 + ((f - f_c)/b)^2)^-2 as of the gammatone of bandwidth b."""
    b = 1.019 * ear.erb(frequency)
    offset = np.array([0.0, -1.0, 1.0])
    _, response = freqz_sos(ear.gammatone(frequency, rate), frequency + offset * b, fs=rate)
    np.testing.assert_allclose(abs(response[0]), 1.0, rtol=1e-12)
    # The mirrored pole tilts the flanks, by 2 b/f_c at most: opposite ways, so that their product keeps the form.
    np.testing.assert_allclose(np.sqrt(abs(response[1] * response[2])), 0.25, rtol=0.5 * (b / frequency) ** 2 + 0.01)


def test_centres_are_evenly_spaced_in_hearing():
    """Between neighbours lies the same number of bandwidths: the integral of df/ERB(f)."""
    centres = ear.erb_space(100.0, 3600.0, 20)
    fine = np.linspace(centres[:-1], centres[1:], 10_001)
    bandwidths = np.trapezoid(1.0 / ear.erb(fine), fine, axis=0)
    np.testing.assert_allclose(bandwidths, bandwidths[0], rtol=1e-7)  # of the trapezia
    np.testing.assert_allclose(centres[[0, -1]], [100.0, 3600.0], rtol=1e-12)


def test_a_tone_at_a_centre_gives_its_logarithm_there_and_less_elsewhere():
    tone = 0.5 * np.sin(2 * np.pi * ear.erb_space(100.0, 3600.0, 20)[10] * np.arange(4000) / RATE)
    late = ear.cochlea(tone, RATE, num_channels=20, high=3600.0)[20:].mean(axis=0)
    # A half-wave rectified sine, sampled a few times a period, has the mean A/pi to some percent.
    np.testing.assert_allclose(late[10], np.log1p(0.5 / 1e-3), atol=0.1)
    assert (np.diff(late[:11]) > 0).all() and (np.diff(late[10:]) < 0).all()


def filtered(currents):
    """Pass [samples, T, N] through the exact filter of each membrane, by SciPy."""
    columns = [lfilter([1.0 - k], [1.0, -k], currents[..., i], axis=1) for i, k in enumerate(np.exp(-0.5 / TAU))]
    return np.stack(columns, axis=-1)


def test_a_scaled_projection_moves_each_voltage_by_the_drive():
    projection = start.scale_to_drive(init_dense(jax.random.key(1), 4, 3), SPIKES, tau_m=TAU, dt=0.5, drive=2.0)
    # Rounding of a mean over 1800 voltages.
    np.testing.assert_allclose(filtered(SPIKES @ np.asarray(projection.weight)).std((0, 1)), 2.0, rtol=1e-12)


def test_the_gain_agrees_with_random_spikes():
    """200 inputs for 40 s: the slowest membrane has some 700 independent voltages, 3 % of error; five of them."""
    spikes = (np.random.default_rng(1).random((1, 80_000, 200)) < 0.05).astype(float)
    gain = np.asarray(start.gain_to_drive(tau_m=TAU, dt=0.5, rate=0.05, drive=1.5))
    weight = np.random.default_rng(2).normal(size=(200, 3))
    weight *= gain / np.sqrt(200 * np.mean(weight**2, axis=0))
    # The formula's mean square is that of spikes about 0, not about their mean.
    centred = filtered(spikes @ weight - 0.05 * weight.sum(0))
    np.testing.assert_allclose(centred.std((0, 1)), 1.5 * np.sqrt(1.0 - 0.05), rtol=0.15)


def test_resonant_neurons_fill_their_ranges():
    params = start.init_resonant(jax.random.key(3), 500, tau_m=(3.0, 30.0), a=50.0, b=10.0, dt=2.0)
    params.check()
    assert 3.0 < params.tau_m.min() < 3.5 and 26.0 < params.tau_m.max() < 30.0
    assert 0.0 < params.a.min() and 45.0 < params.a.max() < 50.0
    # Spiking in every step: w(1 - e^(-dt/tau)) = b, so w stays below 10.
    steady = params.b / -np.expm1(-2.0 / params.tau_w)
    assert 0.0 < steady.min() and 9.0 < steady.max() < 10.0
