"""NWB 2: pairs, units and clocks of files that pynwb wrote, one line for each defect, and a real file against h5py."""

import hashlib
import sys
from datetime import UTC, datetime

import numpy as np
import pytest

from jaxlif.recordings import RecordingWarning, read_recording
from tests.recordings import CURRENT, VOLTAGE, T, read, refused

h5py = pytest.importorskip("h5py")
pynwb = pytest.importorskip("pynwb")

RATE = 10000.0
KINDS = {
    "V": pynwb.icephys.CurrentClampSeries,
    "I": pynwb.icephys.CurrentClampStimulusSeries,
    "zero": pynwb.icephys.IZeroClampSeries,
    "VC": pynwb.icephys.VoltageClampSeries,
    "VC command": pynwb.icephys.VoltageClampStimulusSeries,
    "plain": pynwb.TimeSeries,
}


class Writer:
    """Collects series for one file; amperes and volts go in, as the files have them."""

    def __init__(self):
        start = datetime(2020, 1, 1, tzinfo=UTC)
        self.file = pynwb.NWBFile(session_description="a cell", identifier="1", session_start_time=start)
        self.device = self.file.create_device(name="amplifier")
        self.electrodes = {}

    def electrode(self, name):
        if name not in self.electrodes:
            made = self.file.create_icephys_electrode(name=name, device=self.device, description="glass")
            self.electrodes[name] = made
        return self.electrodes[name]

    def add(self, kind, name, data, *, electrode="soma", to=None, **settings):
        if "timestamps" not in settings:
            settings = {"rate": RATE} | settings
        if "sweep_number" in settings:
            settings["sweep_number"] = np.uint32(settings["sweep_number"])  # pynwb warns of other integers
        if kind != "plain":
            settings["electrode"] = self.electrode(electrode)
        series = KINDS[kind](name=name, data=data, **settings)
        acquired = kind in ("V", "zero", "VC") if to is None else to == "acquisition"
        (self.file.add_acquisition if acquired else self.file.add_stimulus)(series)
        return series

    def sweep(self, number, scale=1.0, **settings):
        settings = {"sweep_number": number} | settings
        stimulus = self.add("I", f"stimulus_{number}", scale * CURRENT * 1e-12, **settings)
        return stimulus, self.add("V", f"response_{number}", (VOLTAGE + scale) * 1e-3, **settings)

    def save(self, path):
        with pynwb.NWBHDF5IO(str(path), "w") as io:
            io.write(self.file)
        return path


@pytest.fixture
def nwb():
    return Writer()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cell.nwb"


def scales(cell):
    """Return the scale of every sweep that Writer.sweep wrote, found in current and in voltage."""
    np.testing.assert_allclose(cell.voltage[:, 0] + 70.0, cell.current[:, 1], atol=1e-9)
    return np.round(cell.current[:, 1], 6).tolist()


# --- what is read -----------------------------------------------------------------------------------------


def test_volts_and_amperes_become_millivolt_and_picoampere(nwb, path):
    nwb.sweep(0)
    nwb.save(path)
    cell = read(path)
    np.testing.assert_allclose(cell.current, CURRENT[None], rtol=1e-12)
    np.testing.assert_allclose(cell.voltage, VOLTAGE[None] + 1.0, rtol=1e-12)
    assert (cell.dt, cell.name, cell.current_source) == (0.1, "cell.nwb", "commanded")
    assert cell.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_conversion_and_offset_apply_to_integers(nwb, path):
    counts = np.arange(T, dtype=np.int16)
    nwb.add("V", "v", counts, conversion=1e-4, offset=-0.07)
    nwb.add("I", "i", counts, conversion=2e-12, offset=5e-12)
    cell = read(nwb.save(path))
    np.testing.assert_allclose(cell.current, 2.0 * counts[None] + 5.0, rtol=1e-12)
    np.testing.assert_allclose(cell.voltage, 0.1 * counts[None] - 70.0, rtol=1e-12)


@pytest.mark.parametrize(("volt", "ampere"), [("mV", "pA"), ("millivolts", b"picoamperes"), ("MilliVolt", "pAmp")])
def test_units_are_those_of_the_file_not_those_that_pynwb_puts_in_their_place(nwb, path, volt, ampere):
    nwb.add("V", "v", VOLTAGE)
    nwb.add("I", "i", CURRENT)
    nwb.save(path)
    with h5py.File(path, "a") as file:
        file["acquisition/v/data"].attrs["unit"] = volt
        file["stimulus/presentation/i/data"].attrs["unit"] = ampere
    if ampere == "pAmp":
        assert "no current belongs" in refused(path)
        return
    cell = read(path)
    np.testing.assert_allclose(cell.current, CURRENT[None], rtol=1e-12)
    np.testing.assert_allclose(cell.voltage, VOLTAGE[None], rtol=1e-12)


def test_timestamps_give_the_interval(nwb, path):
    stamps = 1000.0 + 2e-4 * np.arange(T)
    nwb.add("V", "v", 1e-3 * VOLTAGE, timestamps=stamps)
    nwb.add("I", "i", 1e-12 * CURRENT, rate=5000.0, starting_time=1000.0)
    assert read(nwb.save(path)).dt == pytest.approx(0.2, rel=1e-8)


def test_an_acquired_current_is_preferred_and_either_can_be_asked_for(nwb, path):
    nwb.sweep(0)
    nwb.add("plain", "monitor", 3e-12 * CURRENT, unit="amperes", to="acquisition")
    nwb.save(path)
    with pytest.warns(RecordingWarning, match="recorded current is 3 times the command; the recorded one is read"):
        recorded = read_recording(path)
    with pytest.warns(RecordingWarning, match="recorded current is 3 times the command; the commanded one is read"):
        commanded = read_recording(path, current="commanded")
    assert (recorded.current_source, commanded.current_source) == ("recorded", "commanded")
    np.testing.assert_allclose(recorded.current, 3.0 * CURRENT[None], rtol=1e-12)
    np.testing.assert_allclose(commanded.current, CURRENT[None], rtol=1e-12)


def test_a_stimulus_series_among_the_acquisition_was_recorded(nwb, path):
    nwb.add("V", "v", 1e-3 * VOLTAGE)
    nwb.add("I", "i", 1e-12 * CURRENT, to="acquisition")
    assert read(nwb.save(path)).current_source == "recorded"


# --- which series belong together -------------------------------------------------------------------------


def test_sweep_numbers_pair_whatever_the_names_and_times(nwb, path):
    for place, number in enumerate((7, 3, 12)):
        settings = {"sweep_number": number, "starting_time": 10.0 * place}
        nwb.add("V", f"v{place}", 1e-3 * (VOLTAGE + number), **settings)
    for place, number in enumerate((12, 7, 3, 99)):
        settings = {"sweep_number": number, "starting_time": 10.0 * place}
        nwb.add("I", f"i{place}", 1e-12 * number * CURRENT, **settings)
    nwb.save(path)
    assert scales(read(path)) == [3.0, 7.0, 12.0]
    assert scales(read(path, sweeps=[2, 0])) == [12.0, 3.0]
    assert "sweeps = 3: the recording has 3, numbered 0 to 2" in refused(path, sweeps=3)


def test_the_table_of_recordings_comes_first(nwb, path):
    stimuli, responses = zip(*(nwb.sweep(n, 1.0 + n) for n in range(3)), strict=True)
    nwb.add("V", "alone", 1e-3 * VOLTAGE, sweep_number=0)
    for stimulus, response in ((2, 0), (0, 2)):
        nwb.file.add_intracellular_recording(
            electrode=nwb.electrodes["soma"], stimulus=stimuli[stimulus], response=responses[response]
        )
    nwb.file.add_intracellular_recording(electrode=nwb.electrodes["soma"], response=responses[1])
    nwb.save(path)
    with pytest.warns(RecordingWarning, match="2 of 4 CurrentClampSeries have no current and are left out .alone, res"):
        cell = read_recording(path)
    np.testing.assert_allclose(cell.current[:, 1], [3.0, 1.0], rtol=1e-12)
    np.testing.assert_allclose(cell.voltage[:, 0], [-69.0, -67.0], rtol=1e-12)


def test_rows_of_the_table_may_be_parts_of_one_series(nwb, path):
    stimulus, response = nwb.sweep(0)
    for first in (30, 5):
        nwb.file.add_intracellular_recording(
            electrode=nwb.electrodes["soma"],
            stimulus=stimulus,
            response=response,
            stimulus_start_index=first,
            stimulus_index_count=10,
            response_start_index=first,
            response_index_count=10,
        )
    cell = read(nwb.save(path))
    np.testing.assert_allclose(cell.current, [CURRENT[30:40], CURRENT[5:15]], rtol=1e-12)
    np.testing.assert_allclose(cell.voltage, [VOLTAGE[30:40] + 1, VOLTAGE[5:15] + 1], rtol=1e-12)


def test_starting_times_pair_where_there_are_no_sweep_numbers(nwb, path):
    for name, start in (("1", 20.0), ("2", 10.0)):
        nwb.add("V", f"v{name}", 1e-3 * (VOLTAGE + start), starting_time=start)
    for name, start in (("1", 10.0), ("2", 20.0)):
        nwb.add("I", f"i{name}", 1e-12 * start * CURRENT, starting_time=start)
    assert scales(read(nwb.save(path))) == [10.0, 20.0]


def test_numbers_in_names_pair_naturally_where_all_start_at_0(nwb, path):
    for number in (1, 2, 10):
        nwb.add("V", f"CurrentClampSeries_{number:02d}", 1e-3 * (VOLTAGE + number))
        nwb.add("I", f"stim{number}", 1e-12 * number * CURRENT)
    assert scales(read(nwb.save(path))) == [1.0, 2.0, 10.0]


def test_series_that_nothing_pairs_are_refused(nwb, path):
    for number, name in enumerate("abc", start=1):
        nwb.add("V", f"v_{name}", 1e-3 * (VOLTAGE + number))
        nwb.add("I", f"i_{name}", 1e-12 * number * CURRENT)
    assert refused(nwb.save(path)).startswith("no current belongs to the 3 CurrentClamp")


def test_voltage_clamp_and_zero_current_series_are_ignored(nwb, path):
    nwb.sweep(4, 2.0)
    nwb.add("VC", "vc", 1e-12 * CURRENT, sweep_number=5)
    nwb.add("VC command", "vc_command", 1e-3 * VOLTAGE, sweep_number=5)
    nwb.add("zero", "zero", 1e-3 * VOLTAGE, sweep_number=6)
    assert scales(read(nwb.save(path))) == [2.0]


def set_unit(path, series, unit):
    """Write a unit that pynwb would not."""
    with h5py.File(path, "r+") as file:
        file[f"{series}/data"].attrs["unit"] = unit


def test_current_clamp_series_under_a_command_in_volts_are_voltage_clamp(nwb, path):
    nwb.add("I", "command", 1e-3 * VOLTAGE, sweep_number=5)
    nwb.add("V", "response", 1e-12 * CURRENT, sweep_number=5)
    set_unit(nwb.save(path), "stimulus/presentation/command", "volts")
    assert refused(path).startswith(
        "the output is a voltage (CurrentClampStimulusSeries command in V): a voltage-clamp"
    )
    np.testing.assert_allclose(read(path, current_unit="pA", current_gain=1e3).current, VOLTAGE[None], rtol=1e-12)


def test_a_response_in_amperes_has_a_wrong_unit(nwb, path):
    nwb.add("I", "command", 1e-12 * CURRENT, sweep_number=5)
    nwb.add("V", "response", 20.0 * VOLTAGE, sweep_number=5)
    set_unit(nwb.save(path), "acquisition/response", "pA")
    assert refused(path).startswith("response and stimulus are both currents (response: pA; command: A), a wrong unit")
    np.testing.assert_allclose(read(path, voltage_unit="mV", voltage_gain=0.05).voltage, VOLTAGE[None], rtol=1e-12)


def test_sweeps_without_a_stimulus_are_left_out_and_named(nwb, path):
    nwb.sweep(1, 3.0)
    nwb.add("V", "rest", 1e-3 * VOLTAGE, sweep_number=0)
    nwb.save(path)
    with pytest.warns(RecordingWarning, match="1 of 2 CurrentClampSeries have no current and are left out .rest.") as c:
        assert scales(read_recording(path)) == [3.0]
    assert c[0].filename == __file__


def test_one_of_several_electrodes_has_to_be_chosen(nwb, path):
    nwb.sweep(0, 1.0)
    nwb.sweep(1, 2.0)
    nwb.add("V", "v_dend", 1e-3 * (VOLTAGE + 5.0), electrode="dendrite", sweep_number=0)
    nwb.add("I", "i_dend", 5e-12 * CURRENT, electrode="dendrite", sweep_number=0)
    nwb.add("V", "v_axon", 1e-3 * VOLTAGE, electrode="axon", sweep_number=0)
    nwb.save(path)
    listed = "'axon': 1 series, 'dendrite': 1 series, 'soma': 2 series"
    assert refused(path) == f"3 electrodes ({listed}): choose one with `electrode_channel`"
    assert (
        refused(path, electrode_channel="pia")
        == f"electrode_channel = 'pia': the electrodes in current clamp are {listed}"
    )
    assert scales(read(path, electrode_channel="dendrite")) == [5.0] and scales(
        read(path, electrode_channel="soma")
    ) == [1.0, 2.0]
    assert "no current belongs" in refused(path, electrode_channel="axon")


def test_only_nwb_files_have_electrodes(tmp_path):
    np.savez(tmp_path / "cell.npz", current=CURRENT, dt=0.1)
    with pytest.raises(ValueError, match="cell.npz: electrode_channel = 'soma': only .nwb and .abf files name"):
        read_recording(tmp_path / "cell.npz", electrode_channel="soma")


# --- clocks and lengths -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("late", "size"), [(3, T), (-3, T), (0, 40)])
def test_a_stimulus_of_another_time_is_refused(nwb, path, late, size):
    nwb.add("V", "v", 1e-3 * VOLTAGE[:size], starting_time=10.0, sweep_number=0)
    nwb.add("I", "i", 1e-12 * CURRENT, starting_time=10.0 + late * 1e-4, sweep_number=0)
    expected = f"50 samples of i start {late} samples after the {size} of v: they must cover the same time"
    assert refused(nwb.save(path)) == expected


def test_stimuli_that_all_start_at_0_have_another_clock(nwb, path):
    for number, start in ((1, 0.001), (2, 0.002)):
        nwb.add("V", f"v{number}", 1e-3 * (VOLTAGE + number), starting_time=start, sweep_number=number)
        nwb.add("I", f"i{number}", 1e-12 * number * CURRENT, sweep_number=number)
    cell = read(nwb.save(path))
    assert cell.num_steps == T and scales(cell) == [1.0, 2.0]


def test_sweeps_of_several_lengths_and_rates(nwb, path):
    nwb.sweep(0)
    nwb.add("V", "short_v", 1e-3 * VOLTAGE[:40], sweep_number=1)
    nwb.add("I", "short_i", 1e-12 * CURRENT[:40], sweep_number=1)
    nwb.sweep(2, 3.0)
    nwb.sweep(3, 4.0, rate=20000.0)
    nwb.save(path)
    assert refused(path) == "sweeps have dt = 0.05, 0.1 ms: choose some of one with `sweeps`, as [0, 1, 2]"
    message = "current has sweeps of [40, 50] samples: choose some of one length with `sweeps`"
    assert refused(path, sweeps=slice(3)) == message
    assert scales(read(path, sweeps=[0, 2])) == [1.0, 3.0]
    assert (read(path, sweeps=3).dt, read(path, sweeps=1).num_steps) == (0.05, 40)


def test_nan_in_the_middle_and_everywhere_is_refused(nwb, path):
    nwb.add("V", "v0", np.where(np.arange(T) == 7, np.nan, 1e-3 * VOLTAGE), sweep_number=0)
    nwb.add("V", "v1", np.full(T, np.nan), sweep_number=1)
    for number in (0, 1):
        nwb.add("I", f"i{number}", 1e-12 * CURRENT, sweep_number=number)
    nwb.save(path)
    assert "voltage[0, 7] = nan mV: voltage must be finite" in refused(path, sweeps=0)
    assert "voltage[0, 0] = nan mV: voltage must be finite" in refused(path, sweeps=1)


# --- what the amplifier did -------------------------------------------------------------------------------


def test_bias_current_and_an_open_bridge_are_mentioned_and_not_applied(nwb, path):
    nwb.add("V", "v", 1e-3 * VOLTAGE, bias_current=-25e-12, bridge_balance=0.0)
    nwb.add("I", "i", 1e-12 * CURRENT)
    nwb.save(path)
    with pytest.warns(RecordingWarning) as caught:
        cell = read_recording(path)
    texts = [str(warning.message) for warning in caught]
    assert texts[0].startswith("the amplifier added bias_current = -25 pA in 1 sweeps") and len(texts) == 2
    assert texts[1] == "bridge_balance = 0 Ω in 1 sweeps: the voltage holds the electrode's drop"
    assert {warning.filename for warning in caught} == {__file__}
    np.testing.assert_allclose(cell.current[0], CURRENT, rtol=1e-12)


def test_a_balanced_bridge_and_no_bias_need_no_mention(nwb, path):
    nwb.add("V", "v", 1e-3 * VOLTAGE, bias_current=0.0, bridge_balance=1.2e7)
    nwb.add("I", "i", 1e-12 * CURRENT)
    np.testing.assert_allclose(read(nwb.save(path)).voltage[0], VOLTAGE, rtol=1e-12)


# --- what is refused --------------------------------------------------------------------------------------


def defect(nwb, name):
    """Write one defect."""
    stimulus = {"data": 1e-12 * CURRENT}
    response = {"data": 1e-3 * VOLTAGE}
    if name == "timestamps":
        response["timestamps"] = np.delete(1e-4 * np.arange(T + 1), 9)
    if name == "other rate":
        stimulus["rate"] = 5000.0
    if name == "volts":
        response["data"] = VOLTAGE
    if name == "amperes":
        stimulus["data"] = CURRENT
    if name not in ("voltage clamp only", "empty"):
        nwb.add("V", "v", **response)
    if name == "voltage clamp only":
        nwb.add("VC", "vc", 1e-12 * CURRENT)
    if name == "uneven":
        nwb.add("V", "w", 1e-3 * VOLTAGE)
    if name not in ("no stimulus", "empty"):
        nwb.add("I", "i", **stimulus)


DEFECTS = {
    "timestamps": "the timestamps of v are not regular: steps of 0.1 to 0.2 ms (0.1 % is allowed)",
    "other rate": "v was sampled every 0.1 ms and its current i every 0.2 ms: they must agree",
    "volts": "voltage up to 7e+04 mV (under 10000 mV is expected): a unit, a conversion or a value in the file is",
    "amperes": "current up to 4.9e+13 pA (under 1e+06 pA is expected): a unit, a conversion or a value in the file is",
    "voltage clamp only": "no CurrentClampSeries among the acquisition (1 VoltageClampSeries): a voltage-clamp",
    "empty": "no CurrentClampSeries among the acquisition (nothing)",
    "uneven": "no current belongs to the 2 CurrentClampSeries (found: CurrentClampSer",
    "no stimulus": "no current belongs to the 1 CurrentClampSeries (found: CurrentCl",
}


@pytest.mark.parametrize("name", DEFECTS)
def test_defects_are_one_line(nwb, path, name):
    defect(nwb, name)
    nwb.save(path)
    assert refused(path).startswith(DEFECTS[name])


def test_a_current_that_was_not_recorded(nwb, path):
    nwb.sweep(0)
    nwb.save(path)
    assert refused(path, current="recorded").startswith("no recorded current belongs")


def test_an_unknown_unit_of_voltage(nwb, path):
    nwb.sweep(0)
    nwb.save(path)
    with h5py.File(path, "a") as file:
        file["acquisition/response_0/data"].attrs["unit"] = "counts"
    assert refused(path) == "voltage in 'counts': the units known are V, mV, uV"


def test_hdf5_files_that_are_not_nwb_2(path):
    with h5py.File(path, "w") as file:
        file["data"] = CURRENT
    assert refused(path) == "an HDF5 file without nwb_version: not an NWB file"
    with h5py.File(path, "w") as file:
        file["nwb_version"] = "NWB-1.0.5"
    assert refused(path) == "nwb_version = NWB-1.0.5: only NWB 2 is read"
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = "2.5.0"
    assert refused(path).startswith("damaged, or not what its name says (")


def test_damaged_files(nwb, path):
    nwb.sweep(0)
    whole = nwb.save(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert refused(path).startswith("a damaged HDF5 file, or one that was cut short: an object of ")
    path.write_bytes(b"time,current\n" * 99)
    assert refused(path) == "not an HDF5 file"
    path.write_bytes(b"")
    assert refused(path) == "the file is empty"


DATA = "acquisition/response_0/data"
OUTSIDE = {
    "link": lambda file, bare: file.__setitem__(DATA, h5py.ExternalLink("elsewhere.h5", "/voltage")),
    "missing": lambda file, bare: file.__setitem__("general/notes", h5py.ExternalLink("nowhere.h5", "/x")),
    "storage": lambda file, bare: file.create_dataset(DATA, (T,), "f8", external=[(bare, 0, 8 * T)]),
    "virtual": lambda file, bare: file.create_virtual_dataset(DATA, virtual_layout()),
}


def virtual_layout():
    layout = h5py.VirtualLayout((T,), "f8")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "voltage", (T,))
    return layout


@pytest.mark.parametrize("name", OUTSIDE)
def test_nothing_is_read_from_another_file(nwb, path, tmp_path, name):
    nwb.sweep(0, 2.0)
    nwb.save(path)
    (tmp_path / "bare.bin").write_bytes(np.full(T, -0.07).tobytes())
    with h5py.File(path, "a") as file, h5py.File(tmp_path / "elsewhere.h5", "w") as other:
        other["voltage"] = np.full(T, -0.07)
        if name != "missing":
            del file[DATA]
        OUTSIDE[name](file, str(tmp_path / "bare.bin"))
    assert refused(path).endswith("in another file: copy that into this one")


@pytest.mark.parametrize(
    ("field", "attribute", "value", "message"),
    [
        ("data", "conversion", 0.0, "the conversion of response_0 is 0: it must be finite, and no conversion 0"),
        ("data", "offset", np.nan, "the offset of response_0 is nan: it must be finite"),
        ("starting_time", "rate", np.nan, "the rate of response_0 is nan Hz: it must be finite and above 0 Hz"),
    ],
)
def test_a_scale_or_rate_that_says_nothing(nwb, path, field, attribute, value, message):
    nwb.sweep(0)
    nwb.save(path)
    with h5py.File(path, "a") as file:
        file[f"acquisition/response_0/{field}"].attrs[attribute] = value
    assert refused(path).startswith(message)


def test_complex_samples_are_no_voltage(nwb, path):
    nwb.sweep(0)
    nwb.save(path)
    with h5py.File(path, "a") as file:
        attributes = dict(file[DATA].attrs)
        del file[DATA]
        file[DATA] = 1e-3 * VOLTAGE + 1j
        file[DATA].attrs.update(attributes)
    assert "complex128" in refused(path)


def test_samples_that_were_never_written_are_not_zeros(nwb, path):
    nwb.sweep(0)
    nwb.save(path)
    for size, message in ((T, "2 chunks, and 1 are stored"), (10**12, "40000000000 chunks, and 1 are stored")):
        with h5py.File(path, "a") as file:
            attributes = dict(file[DATA].attrs)
            del file[DATA]
            data = file.create_dataset(DATA, (size,), "f8", chunks=(25,))
            data[:25] = 1e-3 * VOLTAGE[:25]
            data.attrs.update(attributes)
        assert refused(path) == f"the data of response_0 [{size}] should have {message}"


def test_nwb_needs_pynwb(monkeypatch, path):
    path.write_bytes(b"\x89HDF")
    monkeypatch.setitem(sys.modules, "pynwb", None)
    with pytest.raises(ImportError, match=r'needs pynwb: pip install "jaxlif\[recordings\]"'):
        read_recording(path)


# --- a real file ------------------------------------------------------------------------------------------


@pytest.fixture
def lantyer(data_folder):
    return data_folder / "recordings" / "LantyerEtAl2018_180817_ME_9_CC.nwb"


def test_the_barrel_cortex_cell(lantyer):
    cell = read(lantyer)
    assert (cell.current.shape, cell.dt, cell.current_source) == ((10, 23200), 0.05, "commanded")
    with h5py.File(lantyer) as file:
        for sweep in range(10):
            i = file[f"stimulus/presentation/CurrentClampStimulusSeries_{sweep + 1:02d}/data"][()]
            v = file[f"acquisition/CurrentClampSeries_{sweep + 1:02d}/data"][()]
            np.testing.assert_allclose(cell.current[sweep], 1e12 * i, rtol=1e-12)
            np.testing.assert_allclose(cell.voltage[sweep], 1e3 * v, rtol=1e-12)
    # The descriptions of the responses count from 2 and are wrong: with these pairs alone Ohm's law holds.
    change = [
        np.median(x[:3, 6000:11000], axis=1) - np.median(x[:3, :2000], axis=1) for x in (cell.voltage, cell.current)
    ]
    np.testing.assert_allclose(change[0] / change[1], [0.183] * 3, rtol=0.04)


def test_a_sweep_table_of_series_without_numbers_of_their_own_is_refused(lantyer, tmp_path):
    path = tmp_path / "cell.nwb"
    path.write_bytes(lantyer.read_bytes())
    with h5py.File(path, "a") as file:
        for series in file["stimulus/presentation"].values():
            del series.attrs["sweep_number"]
    assert refused(path).startswith("the sweep table numbers series without a sweep_number of their own")
