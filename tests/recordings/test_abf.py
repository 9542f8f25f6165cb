"""Axon binary files: channels, commands and the traps of real files."""

import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from jaxlif.recordings import RecordingWarning, read_recording
from jaxlif.recordings.spikes import detect_spikes
from tests.recordings import CURRENT, VOLTAGE, T, refused


class FakeABF(SimpleNamespace):
    """As much of pyabf.ABF as the reader uses: inputs [channels, sweeps, T], and names with their units."""

    def setSweep(self, sweep, channel=0):  # noqa: N802 (pyabf's name)
        self.sweepY = self.data[channel][sweep]


def fake(monkeypatch, inputs, outputs=(), commands=None):
    """Let the reader open a file of these (name, unit, data) inputs and (name, unit) outputs."""
    names, units, data = zip(*inputs, strict=True)
    out_names, out_units = zip(*outputs, strict=True) if outputs else ((), ())
    sweeps = range(len(data[0]))
    abf = FakeABF(adcNames=names, adcUnits=units, data=data, sweepList=sweeps, sampleRate=10000)
    abf.dacNames, abf.dacUnits = out_names, out_units
    monkeypatch.setattr("jaxlif.recordings.abf._open", lambda path: abf)

    def stimulus(abf, channel):
        if commands is None:
            raise IndexError(channel)
        return SimpleNamespace(stimulusWaveform=lambda sweep: commands[channel][sweep])

    monkeypatch.setattr("pyabf.stimulus.Stimulus", stimulus)


@pytest.fixture
def abf_path(tmp_path):
    path = tmp_path / "cell.abf"
    path.write_bytes(b"ABF2")
    return path


TWO = np.float32([CURRENT, 2 * CURRENT])
MILLIVOLT = np.float32([VOLTAGE, VOLTAGE])


def test_abf_channels_are_chosen_by_unit_and_a_recorded_current_is_preferred(monkeypatch, abf_path):
    inputs = [("Imemb", "nA", TWO / 1000), ("Vm", "V\0", MILLIVOLT / 1000)]
    fake(monkeypatch, inputs, [("Cmd 0", "pA")], [TWO])
    cell = read_recording(abf_path)
    assert cell.current_source == "recorded" and cell.dt == 0.1
    np.testing.assert_allclose(cell.current, TWO, rtol=1e-6)
    np.testing.assert_allclose(cell.voltage, MILLIVOLT, rtol=1e-6)


def test_abf_command_can_be_asked_for_and_is_used_where_nothing_was_recorded(monkeypatch, abf_path):
    inputs = [("Imemb", "pA", TWO), ("Vm", "mV", MILLIVOLT)]
    fake(monkeypatch, inputs, [("Cmd 0", "nA")], [3 * TWO / 1000])
    with pytest.warns(RecordingWarning, match="recorded current is 0.333 times the command; the command was asked"):
        cell = read_recording(abf_path, current="commanded")
    assert cell.current_source == "commanded"
    np.testing.assert_allclose(cell.current, 3 * TWO, rtol=1e-6)
    fake(monkeypatch, inputs[1:], [("Cmd 0", "nA")], [3 * TWO / 1000])
    assert read_recording(abf_path).current_source == "commanded"


def test_abf_command_is_the_output_that_varies(monkeypatch, abf_path):
    outputs = [("Cmd 0", "pA"), ("Cmd 1", "mV"), ("Cmd 2", "pA")]
    fake(monkeypatch, [("Vm", "mV", MILLIVOLT)], outputs, [0 * TWO, TWO, 5 * TWO])
    np.testing.assert_allclose(read_recording(abf_path).current, 5 * TWO)


@pytest.mark.parametrize(
    ("inputs", "outputs", "commands", "asked", "message"),
    [
        ([("Im", "pA", TWO)], [("Cmd 0", "mV")], [TWO], None, "the output is a voltage (Cmd 0: mV)"),
        ([("Im", "pA", TWO)], [("Cmd 0", "V")], None, None, "the output is a voltage (Cmd 0: V)"),
        (
            [("Im", "", TWO)],
            [("Cmd 0", "pA")],
            [TWO],
            None,
            "no channel is a voltage (Im: no unit): name its unit with",
        ),
        ([("Vm", "mV", MILLIVOLT)], [("Cmd 0", "mV")], [TWO], None, "the output is a voltage (Cmd 0: mV)"),
        ([("Vm", "mV", MILLIVOLT)], [("Cmd 0", "pA")], [np.nan * TWO], None, "no command is a current that the file"),
        ([("Vm", "mV", MILLIVOLT)], [("Cmd 0", "pA")], None, None, "no command is a current that the file holds"),
        ([("Vm", "mV", MILLIVOLT)], [("Cmd 0", "pA")], [TWO], "recorded", "no channel is a current (Vm: mV)"),
    ],
)
def test_abf_without_what_is_needed_is_one_line(monkeypatch, abf_path, inputs, outputs, commands, asked, message):
    fake(monkeypatch, inputs, outputs, commands)
    assert message in refused(abf_path, current=asked)


def steps_of(levels, rest=0.0, size=2000):
    """Sweeps [levels, T] of a step in their middle."""
    return rest + np.outer(levels, (np.arange(size) // (size // 4)) % 3 == 1)


def relaxed(x, tau=200.0):
    """Follow x as a membrane does, with a time constant in samples: a plain loop."""
    y = np.zeros_like(x)
    for n in range(1, x.shape[1]):
        y[:, n] = y[:, n - 1] + (x[:, n - 1] - y[:, n - 1]) / tau
    return y


COMMAND = steps_of(np.arange(-40.0, 41.0, 20.0))
HISS = 0.5 * np.random.default_rng(0).standard_normal(COMMAND.shape)


@pytest.mark.parametrize(
    ("current", "voltage"),
    [
        (2.0 * COMMAND + HISS, COMMAND - 70.0 + 0.1 * HISS),
        (2.0 * COMMAND + HISS, 2.0 * HISS - 60.0),
        (HISS, 0.05 * relaxed(COMMAND)),
    ],
    ids=["the voltage follows", "a channel of something else", "no current follows"],
)
def test_an_abf_whose_output_is_a_voltage_is_voltage_clamp(monkeypatch, abf_path, current, voltage):
    """Whatever its channels are called: a clamped membrane's current follows the command too."""
    fake(
        monkeypatch,
        [("Im", "pA", current), ("Vm", "mV", voltage)],
        [("Cmd 0", "mV"), ("b", "pA")],
        [COMMAND, 0.0 * COMMAND],
    )
    for asked in (None, "recorded", "commanded"):
        refusal = refused(abf_path, current=asked)
        assert refusal.startswith("the output is a voltage (Cmd 0: mV): a voltage-clamp recording")
    assert read_recording(abf_path, current_unit="pA").num_sweeps == 5, "the user may know better"


def test_an_output_that_moves_something_else_leaves_a_voltage_clamp_one(monkeypatch, abf_path):
    """A clamped voltage that was recorded, at one level, while a piezo moves; two of them need no choice first."""
    inputs = [("Ipatch", "pA", 2.0 * COMMAND), ("V", "mV", 0.0 * COMMAND - 80.0), ("W", "mV", HISS - 60.0)]
    fake(monkeypatch, inputs, [("Cmd 0", "mV"), ("piezo", "um")], [0.0 * COMMAND, COMMAND])
    with pytest.raises(ValueError, match="the output is a voltage .Cmd 0: mV.: a voltage-clamp recording"):
        read_recording(abf_path)


def test_an_abf_in_current_clamp_under_a_wrong_unit_of_its_command(monkeypatch, abf_path):
    inputs = [("Im", "pA", 20.0 * COMMAND + HISS), ("Vm", "mV", relaxed(COMMAND) - 70.0)]
    fake(monkeypatch, inputs, [("Cmd 0", "mV"), ("Cmd 1", "mV")], [COMMAND, 0.0 * COMMAND])
    np.testing.assert_array_equal(read_recording(abf_path).current, 20.0 * COMMAND + HISS)
    with pytest.raises(ValueError, match=r"no command is a current .*, recorded is Im: pA; is a unit"):
        read_recording(abf_path, current="commanded")
    cell = read_recording(
        abf_path, current="commanded", current_unit="pA", current_gain=20.0, electrode_channel="Cmd 0"
    )
    np.testing.assert_array_equal(cell.current, 20.0 * COMMAND)
    assert cell.corrections == {"current_unit": "pA", "current_gain": 20.0}


def test_an_abf_whose_input_and_output_are_currents_has_a_wrong_unit(monkeypatch, abf_path):
    fake(monkeypatch, [("IN 0", "pA", 20.0 * MILLIVOLT)], [("Cmd 0", "pA"), ("Cmd 1", "mV")], [TWO, 0.0 * TWO])
    with pytest.raises(ValueError, match=r"input and output are both currents \(IN 0: pA; Cmd 0: pA\), a wrong unit"):
        read_recording(abf_path)
    cell = read_recording(abf_path, voltage_unit="mV", voltage_gain=0.05)
    np.testing.assert_allclose(cell.voltage, MILLIVOLT, rtol=1e-6)
    np.testing.assert_array_equal(cell.current, TWO)


@pytest.mark.parametrize(
    ("inputs", "electrode"),
    [([("a", "pA", 20.0 * MILLIVOLT), ("b", "pA", TWO)], "a"), ([("a", "V", MILLIVOLT), ("b", "pA", TWO)], None)],
)
def test_the_unit_of_an_abf_channel_is_the_one_that_was_given(monkeypatch, abf_path, inputs, electrode):
    fake(monkeypatch, inputs)
    gain = 0.05 if electrode else 1.0
    cell = read_recording(abf_path, voltage_unit="mV", voltage_gain=gain, electrode_channel=electrode)
    assert number_of(cell) == (pytest.approx(0.0, abs=1e-5), 1)


def test_abf_warns_of_an_unconnected_current(monkeypatch, abf_path):
    noise = np.random.default_rng(0).standard_normal((2, T))
    fake(monkeypatch, [("Vm", "mV", MILLIVOLT), ("I", "pA", noise)], [("Cmd 0", "pA")], [TWO])
    with pytest.warns(RecordingWarning, match="recorded current does not follow the command"):
        read_recording(abf_path)


def stepped(*levels, holding=0.0):
    """Sweeps of 300 ms, each with a step from 100 to 200 ms."""
    return np.array([np.repeat([holding, holding + level, holding], 1000) for level in levels])


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        (stepped(-50.0, 50.0, 100.0), None),
        (stepped(-50.0, 52.0, 98.0, holding=1.0), None),
        (stepped(-50.0, 50.0, 150.0), "other levels: in sweep 2 at 100 ms 100 and 150 pA; the recorded one is used"),
        (stepped(-50.0, 50.0, 100.0, holding=-20.0), "the recorded current lies -20 pA beside the command throughout"),
    ],
)
def test_abf_warns_where_command_and_recorded_current_differ(monkeypatch, abf_path, measured, message):
    noise = 0.5 * np.random.default_rng(0).standard_normal(measured.shape)
    voltage = -60.0 + 0.05 * measured
    fake(
        monkeypatch,
        [("V", "mV", voltage), ("I", "pA", measured + noise)],
        [("C", "pA"), ("D", "pA")],
        [stepped(-50.0, 50.0, 100.0), 0 * measured],
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_recording(abf_path)
    assert [message in str(w.message) for w in caught] == [True] * (message is not None)


def abf_with_user_list(monkeypatch, values, parameter, repeat=0, lists=1):
    """An ABF2 file of four sweeps of 640 samples whose epochs are 0, then 50 pA and 10 more in every sweep, then 0."""
    pyabf = pytest.importorskip("pyabf")
    abf = object.__new__(type("ListedABF", (pyabf.ABF,), {"setSweep": FakeABF.setSweep}))
    epochs = {"nDACNum": [0] * 3, "nEpochNum": [0, 1, 2], "nEpochType": [1] * 3, "fEpochInitLevel": [0.0, 50.0, 0.0]}
    epochs |= {"fEpochLevelInc": [0.0, 10.0, 0.0], "lEpochDurationInc": [0] * 3, "lEpochInitDuration": [100, 200, 50]}
    epochs |= {"lEpochPulsePeriod": [0] * 3, "lEpochPulseWidth": [0] * 3}
    outputs = {"nWaveformEnable": [1, 0], "nWaveformSource": [1, 1], "nInterEpisodeLevel": [0, 0]}
    vars(abf).update(
        adcNames=["V"], adcUnits=["mV"], dacNames=["Cmd"], dacUnits=["pA"], sweepList=range(4), sampleRate=10000,
        dataRate=10000, data=[-60.0 + 50.0 * np.eye(4, 640)], holdingCommand=[0.0, 0.0], sweepPointCount=640,
        abfVersion={"major": 2}, _epochPerDacSection=SimpleNamespace(**epochs), _dacSection=SimpleNamespace(**outputs),
        _protocolSection=SimpleNamespace(nActiveDACChannel=1), userList=values, userListEnable=[1] * lists,
        userListParamToVary=[parameter] * lists, userListRepeat=[repeat] * lists,
    )  # fmt: skip
    monkeypatch.setattr("jaxlif.recordings.abf._open", lambda path: abf)


@pytest.mark.parametrize(
    ("values", "repeat", "levels"),
    [
        ([-200.0, 25.0, 600.0, 7.0], 0, [-200.0, 25.0, 600.0, 7.0]),
        ([-200.0, 25.0], 1, [-200.0, 25.0, -200.0, 25.0]),
        ([-200.0, 25.0], 0, [-200.0, 25.0, 25.0, 25.0]),
    ],
)
def test_a_user_list_of_an_abf_sets_the_levels_of_its_epoch(monkeypatch, abf_path, values, repeat, levels):
    """The epochs follow the first 640 / 64 samples: Clampex holds for a 64th of the sweep."""
    abf_with_user_list(monkeypatch, values, parameter=62, repeat=repeat)
    expected = np.zeros((4, 640))
    expected[:, 110:310] = np.array(levels)[:, None]
    np.testing.assert_array_equal(read_recording(abf_path).current, expected)


@pytest.mark.parametrize("change", [{"parameter": 112}, {"parameter": 70}, {"lists": 2}, {"values": None}])
def test_a_user_list_that_is_not_read_is_refused(monkeypatch, abf_path, change):
    abf_with_user_list(monkeypatch, **({"values": [1.0, 2.0], "parameter": 62} | change))
    with pytest.raises(ValueError, match=r"no command is a current that the file holds \(a user list varies"):
        read_recording(abf_path)


def test_a_command_that_lies_in_another_file_is_not_read(monkeypatch, abf_path):
    """pyabf would look for the stimulus file in three places, one of them named by the header."""
    fake(monkeypatch, [("Vm", "mV", MILLIVOLT)], [("Cmd 0", "pA")], [TWO])
    opened = sys.modules["jaxlif.recordings.abf"]._open(abf_path)
    opened._dacSection = SimpleNamespace(nWaveformEnable=[1], nWaveformSource=[1])
    assert read_recording(abf_path).current_source == "commanded"
    opened._dacSection.nWaveformSource = [2]
    with pytest.raises(ValueError, match=r"no command is a current .* \(Cmd 0: pA\), recorded is no"):
        read_recording(abf_path)


def channels(*names):
    """Make inputs of these names: V2 is the voltage plus 2 mV, I3 three times the current."""
    data = {"V": ("mV", lambda n: MILLIVOLT + n), "I": ("pA", lambda n: n * TWO)}
    return [(name, data[name[0]][0], data[name[0]][1](int(name[1]))) for name in names]


def number_of(recording):
    """Return which voltage and which current a recording holds."""
    return float(np.mean(recording.voltage - MILLIVOLT)), float(np.mean(recording.current) / np.mean(TWO))


@pytest.mark.parametrize(
    ("names", "electrode", "expected"),
    [
        (("I3", "V2"), None, (2, 3)),
        (("V1", "I1", "V2", "I3"), "V2", (2, 3)),
        (("V1", "I1", "V2", "I3"), "V1", (1, 1)),
        (("V1", "I1", "I2"), "I2", (1, 2)),
    ],
)
def test_an_electrode_of_an_abf_brings_its_own_current(monkeypatch, abf_path, names, electrode, expected):
    fake(monkeypatch, channels(*names))
    assert number_of(read_recording(abf_path, electrode_channel=electrode)) == expected


@pytest.mark.parametrize(
    ("names", "electrode", "message"),
    [
        (
            ("V1", "I1", "V2", "I2"),
            None,
            "2 channels are a voltage (V1: mV, V2: mV): choose one with `electrode_channel`",
        ),
        (("V1", "I1", "I2"), None, "2 channels are a current (I1: pA, I2: pA): choose one with `electrode_channel`"),
        (("V1", "I1", "I2"), "V1", "2 channels are a current (I1: pA, I2: pA): choose one with `electrode_channel`"),
        (
            ("V1", "V2", "I1", "I2", "I3"),
            "I2",
            "2 channels are a voltage (V1: mV, V2: mV): choose one with `electrode_channel`",
        ),
        (("V1", "V2", "I1"), "V3", "electrode_channel = 'V3': the channels are V1: mV, V2: mV, I1: pA"),
        (
            ("V1", "V2", "I1", "I2", "I3"),
            "V2",
            "3 channels are a current (I1: pA, I2: pA, I3: pA): choose one with `electrode_channel`",
        ),
    ],
)
def test_one_of_several_abf_channels_has_to_be_chosen(monkeypatch, abf_path, names, electrode, message):
    fake(monkeypatch, channels(*names))
    assert refused(abf_path, electrode_channel=electrode) == message


def test_channels_of_an_abf_that_share_a_name_are_no_choice_and_those_without_are_numbered(monkeypatch, abf_path):
    inputs = [("Vm", "mV", MILLIVOLT), ("Vm\0", "mV", MILLIVOLT + 1), ("", "pA", TWO), ("", "pA", 2 * TWO)]
    fake(monkeypatch, inputs)
    assert "2 channels are a voltage (Vm: mV, Vm: mV): choose one" in refused(abf_path, electrode_channel="Vm")
    fake(monkeypatch, inputs[1:])
    assert number_of(read_recording(abf_path, electrode_channel="channel 2")) == (1, 2)


def test_the_only_recorded_current_of_two_electrodes_is_doubted(monkeypatch, abf_path):
    fake(monkeypatch, channels("V1", "V2", "I3"))
    with pytest.warns(RecordingWarning, match="only recorded current, I3, is taken for that of V2: was it injected"):
        assert number_of(read_recording(abf_path, electrode_channel="V2")) == (2, 3)


def test_the_command_of_an_abf_electrode(monkeypatch, abf_path):
    """Of as many outputs as voltages the one at the same place; else the one that varies, or one that was named."""
    outputs, commands = [("Cmd 0", "pA"), ("Cmd 1", "pA"), ("Cmd 2", "pA")], [1 * TWO, 2 * TWO, 0 * TWO]
    fake(monkeypatch, channels("V1", "V2"), outputs[:2], commands[:2])
    assert number_of(read_recording(abf_path, electrode_channel="V2")) == (2, 2)
    fake(monkeypatch, channels("V1"), outputs, commands)
    with pytest.raises(ValueError, match=r"2 channels are a current \(Cmd 0: pA, Cmd 1: pA\): choose one with"):
        read_recording(abf_path)
    assert number_of(read_recording(abf_path, electrode_channel="Cmd 1")) == (1, 2)
    fake(monkeypatch, channels("V1", "I2"), outputs, commands)
    assert number_of(read_recording(abf_path)) == (1, 2), "a current that was recorded needs no choice of a command"
    with pytest.raises(ValueError, match="electrode_channel = 'Cmd 0': the channels are V1: mV, I2: pA"):
        read_recording(abf_path, electrode_channel="Cmd 0")
    with pytest.warns(RecordingWarning, match="recorded current is 2 times the command"):
        assert number_of(read_recording(abf_path, electrode_channel="Cmd 0", current="commanded")) == (1, 1)


def test_abf_sweeps_of_several_lengths(monkeypatch, abf_path):
    voltage, current = [VOLTAGE, VOLTAGE[:40], VOLTAGE], [CURRENT, CURRENT[:40], CURRENT]
    fake(monkeypatch, [("Vm", "mV", voltage), ("I", "pA", current)])
    with pytest.raises(ValueError, match="current has sweeps of \\[40, 50\\] samples: choose some"):
        read_recording(abf_path)
    assert read_recording(abf_path, sweeps=[0, 2]).num_sweeps == 2


def test_abf_needs_pyabf(monkeypatch, abf_path):
    monkeypatch.setitem(sys.modules, "pyabf", None)
    with pytest.raises(ImportError, match=r'needs pyabf: pip install "jaxlif\[recordings\]"'):
        read_recording(abf_path)


def test_a_real_abf_file_without_a_command(tmp_path):
    writer = pytest.importorskip("pyabf.abfWriter")
    path = tmp_path / "cell.abf"
    for unit, message in (("mV", "no command is a current"), ("pA", "no channel is a voltage .channel 0: pA.")):
        writer.writeABF1(np.tile(MILLIVOLT, 100), str(path), 10000, units=unit)
        with pytest.raises(ValueError, match=message):
            read_recording(path)


def test_the_measured_current_of_the_pyramidal_cell(data_folder):
    path = data_folder / "recordings" / "ferguson2015_PYR1.abf"
    cell = read_recording(path)
    assert (cell.current_source, cell.dt, cell.current.shape) == ("recorded", 0.1, (30, 20000))
    in_step = np.median(cell.current[:, 900:10700], axis=1)
    assert -2.0 < in_step[0] < 0.0 and 280.0 < in_step[-1] < 285.0
    assert -70.0 < np.median(cell.voltage) < -55.0 and detect_spikes(cell.voltage[-1], cell.dt).sum() == 29
    with pytest.raises(ValueError, match=r"no command is .* \(Cmd 0: mV, .*\), recorded is Imemb: pA"):
        read_recording(path, current="commanded")


def test_the_commanded_current_of_the_interneuron(data_folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cell = read_recording(data_folder / "recordings" / "2019_07_24_0055_fsi.abf")
    assert (cell.current_source, cell.dt, cell.current.shape) == ("commanded", 0.05, (17, 60000))
    np.testing.assert_array_equal(cell.current[:, 3000], np.arange(-100.0, 301.0, 25.0))
    with pytest.raises(ValueError, match='current = "recorded": no channel is a current'):
        read_recording(data_folder / "recordings" / "2019_07_24_0055_fsi.abf", current="recorded")


def test_real_npz_files(data_folder):
    cell = read_recording(data_folder / "recordings" / "l5_pyramidal_frozen_noise.npz")
    assert cell.current.shape == (9, 140000) and cell.electrode_current.shape == (100000,)
    assert read_recording(data_folder / "recordings" / "qsnmc2007_a.npz").current.shape == (16, 34000)
