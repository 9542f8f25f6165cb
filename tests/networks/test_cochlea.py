"""The cochlea: its filters against their closed form, tones, loudness, and what it refuses."""

import numpy as np
import pytest
from scipy.signal import freqz_sos

import jaxlif as jl
from jaxlif.networks import cochlea, level_crossing
from jaxlif.networks.cochlea import erb, erb_space, gammatone

RATE = 8000.0


def tone(frequency, amplitude=0.5, duration=0.5, rate=RATE):
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(round(duration * rate)) / rate)


@pytest.mark.parametrize(("frequency", "rate"), [(100.0, 8000.0), (1000.0, 8000.0), (100.0, 48000.0)])
def test_the_filter_is_a_fourth_order_gammatone(frequency, rate):
    """Gain 1 at its frequency, and near it |H| = (1 + ((f - f_c)/b)^2)^-2 as of the gammatone of bandwidth b."""
    b = 1.019 * erb(frequency)
    offset = np.array([0.0, -1.0, 1.0])
    _, response = freqz_sos(gammatone(frequency, rate), frequency + offset * b, fs=rate)
    np.testing.assert_allclose(abs(response[0]), 1.0, rtol=1e-12)
    # The mirrored pole tilts the flanks, by 2 b/f_c at most: opposite ways, so that their product keeps the form.
    np.testing.assert_allclose(np.sqrt(abs(response[1] * response[2])), 0.25, rtol=0.5 * (b / frequency) ** 2 + 0.01)


def test_centres_are_evenly_spaced_in_hearing():
    """Between neighbours lies the same number of bandwidths: the integral of df/ERB(f) in closed form."""
    centres = erb_space(100.0, 3600.0, 20)
    fine = np.linspace(centres[:-1], centres[1:], 10_001)
    bandwidths = np.trapezoid(1.0 / erb(fine), fine, axis=0)
    np.testing.assert_allclose(bandwidths, bandwidths[0], rtol=1e-7)  # of the trapezia
    np.testing.assert_allclose(centres[[0, -1]], [100.0, 3600.0], rtol=1e-12)


@pytest.mark.parametrize("channel", [2, 10, 17])
def test_a_tone_at_a_centre_gives_its_logarithm_there_and_less_elsewhere(channel):
    centre = erb_space(100.0, 3600.0, 20)[channel]
    drive = cochlea(tone(centre), RATE, num_channels=20, high=3600.0)
    assert drive.shape == (50, 20)
    late = drive[20:].mean(axis=0)
    assert late.argmax() == channel
    # A half-wave rectified sine, sampled a few times a period, has the mean A/pi to some percent.
    np.testing.assert_allclose(late[channel], np.log1p(0.5 / 1e-3), atol=0.1)
    assert (np.diff(late[: channel + 1]) > 0).all() and (np.diff(late[channel:]) < 0).all()


def test_loudness_adds_the_same_to_all_channels_and_silence_is_zero():
    sound = np.random.default_rng(0).normal(0.0, 0.1, 4000)
    quiet, loud = (cochlea(gain * sound, RATE, floor=1e-9) for gain in (1.0, 8.0))
    np.testing.assert_allclose((loud - quiet)[5:], np.log(8.0), rtol=1e-5)  # the floor lies 1e-7 below
    np.testing.assert_array_equal(cochlea(np.zeros(800), RATE), np.zeros((10, 40)))


def test_integers_are_in_full_scale_and_a_part_of_a_step_is_left_out():
    sound = (32768 * tone(440.0)[:887]).astype(np.int16)
    np.testing.assert_array_equal(cochlea(sound, RATE), cochlea(sound / 32768.0, RATE))
    assert cochlea(sound, RATE).shape == (11, 40)
    np.testing.assert_array_equal(cochlea(sound, RATE)[:5], cochlea(sound[:400], RATE), "it is causal")


def test_neurons_and_levels_make_spikes_of_it():
    """A tone drives the neurons of its channel, and its levels rise at its start and fall at its end."""
    sound = np.concatenate([np.zeros(800), tone(1000.0, duration=0.2), np.zeros(1600)])
    drive = cochlea(sound, RATE, dt=5.0, num_channels=5, low=500.0, high=2000.0)
    params = jl.LIFParams(tau_m=20.0, r_m=1.0, v_rest=0.0, v_th=1.0, v_reset=0.0, t_ref=0.0)
    spikes = np.asarray(jl.simulate(jl.LIF(dt=5.0), params, drive)[1].spikes)
    assert spikes[:20].sum() == 0 and spikes[24:60].sum(axis=0).argmax() == 2
    events = np.asarray(level_crossing(drive, 1.0))
    up, down = events[:, 2], events[:, 7]
    assert up[20:30].sum() == up.sum() == 6 and down[60:].sum() == down.sum() == 6  # ln(1 + 0.5/0.001) = 6.2 levels


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dt": 0.3}, "^dt = 0.3 ms: it must be a whole number of samples of 0.125 ms"),
        ({"dt": -1.0}, "^dt = -1 ms: dt must be greater than 0 ms"),
        ({"rate": 0.0}, "^rate = 0 Hz: rate must be greater than 0 Hz"),
        ({"floor": 0.0}, "^floor = 0: floor must be greater than 0"),
        ({"num_channels": 0}, "^num_channels = 0: num_channels must be a whole number, 1 or more"),
        ({"high": 4000.0}, "^low = 100 Hz, high = 4000 Hz: they must rise, above 0 and below 4000 Hz"),
        ({"low": 0.0}, "^low = 0 Hz, high = 3600 Hz"),
        ({"audio": np.zeros((2, 800))}, r"^audio has shape \[2, 800\]: it must be \[samples\]"),
        ({"audio": np.zeros(79)}, r"^audio has shape \[79\]: it must be \[samples\] and last a step of 10 ms"),
        ({"audio": np.full(800, np.nan)}, "^audio is not finite"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        cochlea(**{"audio": np.zeros(800), "rate": RATE} | options)
