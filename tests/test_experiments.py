"""What an experiment computes before it trains: a cochlea against closed forms."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import freqz_sos


def load(name):
    path = Path(__file__).resolve().parent.parent / "experiments" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ear = load("cochlea")
RATE = 8000.0


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
