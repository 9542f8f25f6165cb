"""Plausibility: scales on both sides of what neurons have, and currents that are no stimulus, of simulated cells."""

import warnings

import numpy as np
import pytest

from jaxlif.recordings import Recording, RecordingWarning, read_recording
from jaxlif.recordings.notes import require_stimulus
from jaxlif.recordings.spikes import detect_spikes
from jaxlif.recordings.units import EVIDENT, evidence

DT, T = 0.5, 20000  # ms, samples: 10 s
TIME = DT * np.arange(T)
RNG = np.random.default_rng(0)


def noise(sd, shape=(1, T)):
    return sd * RNG.standard_normal(shape)


def filtered(sd, tau, shape=(1, T)):
    """Noise with a time constant in ms, by its recursion."""
    decay = np.exp(-DT / tau)
    kicks = noise(sd * np.sqrt(1.0 - decay**2), shape)
    x = np.zeros(shape)
    for n in range(1, shape[1]):
        x[:, n] = decay * x[:, n - 1] + kicks[:, n]
    return x


def lif(current, r_m=0.15, tau_m=15.0, synapses=0.0):
    """A plain loop: rest -65, threshold -50, reset -60, 2 ms refractory, spikes drawn at 30 mV, 0.2 mV of noise."""
    drive = -65.0 + r_m * current + (filtered(synapses, 5.0, current.shape) if synapses else 0.0)
    decay, v, held = np.exp(-DT / tau_m), np.full(len(current), -65.0), np.zeros(len(current))
    voltage = np.zeros(current.shape)
    for n in range(current.shape[1]):
        v = np.where(held > 0, -60.0, drive[:, n] + (v - drive[:, n]) * decay)
        spike = v >= -50.0
        voltage[:, n] = np.where(spike, 30.0, v)
        v, held = np.where(spike, -60.0, v), np.where(spike, 4, held - 1)
    return voltage + noise(0.2, current.shape)


def steps(levels, size=2000):
    return np.outer(levels, (np.arange(size) // (size // 4)) % 3 == 1).astype(float)


@pytest.fixture(scope="module")
def family():
    """Current [8, 2000] and voltage of a spiking step family."""
    current = steps(np.arange(-50.0, 300.0, 50.0))
    return current, lif(current)


@pytest.fixture(scope="module")
def spontaneous():
    """The voltage of a cell that fires by its synapses alone."""
    return lif(np.full((1, T), 90.0), synapses=6.0)


def silent(**fields):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Recording(dt=DT, **fields)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (1e-3, "physiological in volts: multiply it by 1000"),
        (0.01, "looks 100 times too small: multiply it by 100"),
        (10.0, "it looks 10 times too large (`voltage_gain` 0.1)"),
        (20.0, "it looks 20 times too large (`voltage_gain` 0.05)"),
        (1e3, "it looks 1000 times too large (`voltage_gain` 0.001)"),
        (4.0, "which no membrane has"),
    ],
)
def test_a_voltage_of_another_scale_is_refused_with_the_likely_factor(family, scale, message):
    current, voltage = family
    silent(current=current, voltage=voltage)
    for fields in ({"voltage": scale * voltage}, {"electrode_voltage": scale * voltage[0]}):
        extra = {"electrode_current": current[0]} if "electrode_voltage" in fields else {}
        with pytest.raises(ValueError, match="voltage spans") as error:
            Recording(current=current, dt=DT, **fields, **extra)
        assert message in str(error.value)


@pytest.mark.parametrize(
    ("scale", "offset", "message"),
    [
        (0.1, 0.0, r"above -6.5. mV for 90 % of the time.*it looks 10 times too small"),
        (1.0, 50.0, r"above -1.\.?.* mV for 90 % of the time.*its zero .`voltage_offset`."),
        (1.0, -80.0, "below -1.* mV for 90 % of the time, where no neuron rests"),
    ],
)
def test_a_rest_where_no_neuron_rests_is_said(family, scale, offset, message):
    current, voltage = family
    with pytest.warns(RecordingWarning, match=message) as caught:
        Recording(current=current, voltage=scale * voltage + offset, dt=DT)
    assert caught[0].filename == __file__


def test_a_voltage_in_units_of_its_threshold_has_no_rest(family):
    current, voltage = family
    silent(current=current, voltage=(voltage + 65.0) / 80.0)
    silent(current=current, voltage=np.zeros(current.shape))


def test_samples_that_no_membrane_reaches_are_counted(family):
    current, voltage = family
    voltage = voltage.copy()
    voltage[2, 700:703] = -650.0
    with pytest.warns(RecordingWarning, match="reaches 650 mV from zero in 3 samples"):
        Recording(current=current, voltage=voltage, dt=DT)


@pytest.mark.parametrize(("factor", "unit"), [(1e-3, "nA"), (1e-6, "µA"), (1e-12, "A"), (1e3, "fA")])
def test_a_current_in_another_unit_is_said(family, factor, unit):
    current, voltage = family
    with pytest.warns(RecordingWarning, match=f"input resistance of .* is the current in {unit}\\?"):
        suspect = Recording(current=factor * current, voltage=voltage, dt=DT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        suspect.window(100.0, 900.0)  # a part of a whole that was judged already
        Recording(current=0.0 * current, voltage=voltage, dt=DT)


@pytest.mark.parametrize(("r_m", "step"), [(5.0, 2.0), (0.005, 2000.0)])
def test_the_smallest_and_the_largest_neurons_are_no_error_of_units(r_m, step):
    current = steps(step * np.arange(-2.0, 5.0))
    silent(current=current, voltage=lif(current, r_m=r_m))


# --- is there a stimulus? ---------------------------------------------------------------------------------


def refused(current, voltage):
    cell = silent(current=current, voltage=voltage)
    with pytest.raises(ValueError, match=r"current: its changes \(SD .* pA around .* leave no trace in the voltage"):
        require_stimulus(cell, detect_spikes(voltage, DT))


def hum(frequency, amplitude, phase=0.0):
    return amplitude * np.sin(2e-3 * np.pi * frequency * TIME + phase)[None]


KINDS = ("white", "50 Hz", "60 Hz", "drift", "slow", "transients", "crosstalk", "another cell")


@pytest.mark.parametrize("kind", KINDS)
def test_noise_in_the_channel_of_the_current_is_no_stimulus(spontaneous, kind):
    """Nor is what couples into both channels: the mains, a drift of the seal, spikes."""
    current, voltage = 15.6 + noise(0.7), spontaneous
    if kind.endswith("Hz"):
        current, voltage = current + hum(float(kind[:2]), 1.0), voltage + hum(float(kind[:2]), 0.4, 0.5)
    elif kind == "drift":
        current, voltage = current + 2.0 * TIME / TIME[-1], voltage + 5.0 * TIME / TIME[-1]
    elif kind == "slow":
        current, voltage = current + filtered(1.0, 2000.0), voltage + filtered(1.0, 2000.0)
    elif kind == "transients":
        jumps = np.diff(voltage, prepend=-65.0)
        current = current + np.where(np.abs(jumps) > 20.0, jumps, 0.0) / 5.0  # through a capacitance, 16 pA at a spike
    elif kind == "crosstalk":  # the noise of one channel in the other, a hundred times what chance makes of it
        current = current + np.diff(filtered(0.5, 0.5), prepend=0.0)
        voltage = voltage + 0.3 * (current - 15.6)
    elif kind == "another cell":
        current = 100.0 + filtered(50.0, 5.0)
    assert detect_spikes(voltage, DT).sum() > 50
    refused(current, voltage)


WEAK = {
    "20 pA steps under 6 pA of noise": lambda: (steps(20.0 * np.arange(-3.0, 5.0)), 0.15, 6.0, 0.0),
    "5 pA of noise into 5 GΩ": lambda: (1.5 + filtered(5.0, 5.0), 5.0, 0.0, 0.0),
    "2 ms pulses": lambda: (1000.0 * (np.arange(T) % 2000 // 4 == 100)[None].astype(float), 0.15, 3.0, 0.0),
    "10 Hz": lambda: (95.0 + hum(10.0, 30.0), 0.15, 3.0, 0.0),
    "white noise": lambda: (100.0 + noise(300.0), 0.15, 0.0, 0.0),
    "a ramp": lambda: (200.0 * TIME[None] / TIME[-1], 0.15, 3.0, 0.0),
    "noise between synapses": lambda: (60.0 + filtered(15.0, 5.0), 0.15, 1.0, 6.0),
}


@pytest.mark.parametrize("kind", WEAK)
def test_weak_and_odd_stimuli_are_stimuli(kind):
    current, r_m, measured, synapses = WEAK[kind]()
    cell = silent(current=current + noise(measured, current.shape), voltage=lif(current, r_m=r_m, synapses=synapses))
    require_stimulus(cell, detect_spikes(cell.voltage, DT))


def test_a_voltage_that_was_the_command_is_voltage_clamp_in_any_format():
    """The same steps under a membrane's voltage, whose rounding repeats values too, are none."""
    levels = steps(np.arange(-20.0, 21.0, 10.0))
    leak = 5.0 * levels + noise(3.0, levels.shape)
    with pytest.raises(ValueError, match="voltage changes in steps that are exact to the digit .* in voltage clamp"):
        require_stimulus(silent(current=leak, voltage=levels - 70.0))
    require_stimulus(silent(current=levels, voltage=np.round(lif(levels), 1)))


def test_chance_stays_below_the_limit(spontaneous):
    """F of 200 currents of noise, by chance above 12 in one of 160 000: none here."""
    spikes = detect_spikes(spontaneous, DT)
    assert max(evidence(noise(0.7), spontaneous, DT, spikes) for _ in range(200)) < EVIDENT


def test_a_constant_current_is_refused_and_a_short_recording_is_not_denied():
    with pytest.raises(ValueError, match="current = 5 pA in every sample"):
        require_stimulus(Recording(np.full((2, 100), 5.0), dt=0.1))
    require_stimulus(Recording(np.array([[1.0] * 100, [2.0] * 100]), dt=0.1))
    require_stimulus(Recording(noise(1.0, (1, 30)), voltage=noise(1.0, (1, 30)) - 65.0, dt=DT))


@pytest.mark.parametrize("file", ["171116sh_0016.abf", "allen_step_526950199.npz", "ferguson2015_PYR1.abf"])
def test_real_recordings_raise_no_alarm(data_folder, file):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cell = read_recording(data_folder / "recordings" / file)
    require_stimulus(cell, detect_spikes(cell.voltage, cell.dt))
