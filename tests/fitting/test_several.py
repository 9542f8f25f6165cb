"""Several recordings: each fitted as if it were alone, whatever the others are and wherever it runs."""

import csv
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import jax
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.fitting.several import RecordingFits, fit_each, named_files
from jaxlif.report import cell_rows

DT, DURATION = 0.5, 2000.0


def cell(tau_m):
    noise = jl.stimulus.ornstein_uhlenbeck(jax.random.key(0), 180.0, 150.0, 5.0, DURATION, DT)
    _, output = jl.simulate(jl.LIF(dt=DT), jl.LIFParams(tau_m=tau_m), noise)
    return {"current": np.asarray(noise), "voltage": np.where(output.spikes > 0, 20.0, output.v), "dt": DT}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two good recordings, and between them a silent one, a truncated one and one that is not there."""
    folder = tmp_path_factory.mktemp("cells")
    paths = [folder / f"{name}.npz" for name in ("fast", "silent", "torn", "gone", "slow")]
    np.savez(paths[0], **cell(8.0))
    np.savez(paths[1], **cell(8.0) | {"voltage": np.minimum(cell(8.0)["voltage"], -20.0)})
    paths[2].write_bytes(paths[0].read_bytes()[:5000])
    np.savez(paths[4], **cell(16.0))
    return paths


@pytest.fixture(scope="module")
def found(files):
    return jl.fit_recordings(files, window=(0.0, 1000.0), executor=ThreadPoolExecutor(1))


def same(fits, others):
    """Say whether fits are those of this process, but for how many threads have taken part in their sums."""
    for name, fit in fits.items():
        for parameter in ("tau_m", "r_m", "v_rest", "v_th", "v_reset", "t_ref"):
            assert getattr(fit.params, parameter) == pytest.approx(getattr(others[name].params, parameter), rel=1e-6)
    return list(fits) == list(others)


def written(fit, folder):
    return fit.save(folder).read_bytes()


def test_each_fit_is_that_of_its_recording_alone(found, files, tmp_path):
    assert list(found.fits) == ["fast", "slow"]
    for path in (files[0], files[4]):
        alone = jl.fit_recording(jl.read_recording(path), window=(0.0, 1000.0))
        assert written(found.fits[path.stem], tmp_path) == written(alone, tmp_path)
    # Noiseless data of the model itself.
    assert found.fits["slow"].params.tau_m == pytest.approx(16.0, rel=2e-3)


def test_bad_ones_are_listed_with_their_reasons(found):
    assert list(found.failed) == ["silent", "torn", "gone"]
    words = {"silent": "voltage has no spikes", "torn": "torn.npz: ", "gone": "gone.npz: no such file"}
    for name, reason in found.failed.items():
        assert words[name] in reason and "\n" not in reason


def test_recordings_by_name_are_fitted_like_files(found, files, tmp_path):
    recording = jl.read_recording(files[0])
    named = jl.fit_recordings(
        {"x": recording, "y": str(files[4])}, window=(0.0, 1000.0), executor=ThreadPoolExecutor(1)
    )
    for name, twin in (("x", "fast"), ("y", "slow")):
        assert written(named.fits[name], tmp_path) == written(found.fits[twin], tmp_path)
    assert not named.failed


def test_the_table_holds_what_the_fits_hold(found):
    table = found.table()
    assert table["cell"] == ["fast", "slow"]
    for name in ("tau_m", "r_m", "v_rest", "v_th", "v_reset", "t_ref"):
        assert table[name] == [getattr(fit.params, name) for fit in found.fits.values()]
    for name in ("rate_data", "coincidence_factor", "voltage_variance_explained"):
        assert table[name] == [fit.scores["test"][name] for fit in found.fits.values()]
    assert "md_star" not in table and "f_i_rmse" not in table, "what no fit has is no column"
    heading, *rows = cell_rows(found)
    assert [row[heading.index("tau_m (ms)")] for row in rows] == [f"{tau:.4g}" for tau in table["tau_m"]]


def test_the_csv_holds_every_cell_with_its_intervals_and_reasons(found):
    one = replace(
        found.fits["slow"], warnings=("a, b", "c"), undetermined=("t_ref",), intervals={"tau_m": (15.0, 17.0)}
    )
    text = RecordingFits({"slow": one}, {"torn": "torn.npz: cut, short"}).csv()
    slow, torn = csv.DictReader(text.splitlines())
    assert float(slow["tau_m (ms)"]) == one.params.tau_m
    assert (slow["tau_m_low (ms)"], slow["tau_m_high (ms)"]) == ("15.0", "17.0")
    assert "t_ref (ms)" not in slow and "v_th_low (mV)" not in slow, "not determined, and without an interval"
    assert float(slow["rate_data (Hz)"]) == one.scores["test"]["rate_data"]
    assert (slow["notes"], slow["failed"], torn["cell"], torn["failed"]) == (
        "a, b; c",
        "",
        "torn",
        "torn.npz: cut, short",
    )


def test_the_csv_has_the_verdict_and_kernels_for_their_terms(found):
    """The kernel against its closed form; at 5 ms it hides in the refractory period."""
    params = jl.AdaptiveLIFParams(t_ref=6.0, eta=(50.0, 1.0), tau_eta=(10.0, 200.0))
    one = replace(found.fits["slow"], model="gif", params=params, intervals={}, undetermined=())
    (row,) = csv.DictReader(RecordingFits({"slow": one}, {}).csv().splitlines())
    assert float(row["eta_20ms (pA)"]) == pytest.approx(50.0 * np.exp(-2.0) + np.exp(-0.1))
    assert not {"eta.0 (pA)", "tau_eta.0 (ms)", "eta_5ms (pA)", "eta_20ms_low (pA)", "gamma_20ms (mV)"} & row.keys()
    assert row["verdict"] == one.verdict.sentence != ""


def test_cells_of_other_models_leave_gaps_in_the_table(found):
    currents = np.linspace(0.0, 500.0, 6)
    rates = jl.fit_rates(currents, np.asarray(jl.theory.firing_rate(jl.LIFParams(), currents)), jl.LIFParams())
    table = RecordingFits({"fast": found.fits["fast"], "rates": rates}, {}).table()
    assert table["f_i_rmse"] == [None, rates.scores["f_i"]["rmse"]]
    assert table["coincidence_factor"] == [found.fits["fast"].scores["test"]["coincidence_factor"], None]


@pytest.mark.parametrize(
    "error", [ValueError("two\n  lines"), OSError("disk"), FileNotFoundError("gone"), ValueError()]
)
def test_what_a_cell_can_do_wrong_stops_nobody(error, found):
    def fit_one(name, cell):
        if cell == 1:
            raise error
        return found.fits["fast"]

    fits = fit_each({"a": 0, "b": 1, "c": 2}, fit_one, jobs=1)
    assert list(fits.fits) == ["a", "c"]
    assert fits.failed == {"b": " ".join(str(error).split()) or "ValueError"}


@pytest.mark.parametrize("error", [TypeError, KeyError, ImportError, RuntimeError, KeyboardInterrupt])
def test_a_bug_is_no_bad_cell(error):
    def fit_one(name, cell):
        raise error("x")

    with pytest.raises(error):
        fit_each({"a": 0, "b": 1}, fit_one, jobs=1)
    if issubclass(error, Exception):
        with ThreadPoolExecutor(2) as executor, pytest.raises(error):
            fit_each({"a": 0, "b": 1}, fit_one, executor=executor)


def test_a_bar_counts_the_cells(found, capsys):
    fit_each({"a": 0, "b": 1}, lambda name, cell: found.fits["fast"], jobs=1, progress=True)
    assert "2/2" in capsys.readouterr().err
    fit_each({"a": 0, "b": 1}, lambda name, cell: found.fits["fast"], jobs=1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "hh"}, "model = 'hh'"),
        ({"model": ["lif"]}, r"model = \['lif'\]: the models"),
        ({"bounds": {"tau": (1.0, 2.0)}}, "bounds name 'tau'"),
        ({"drift": True}, "drift is for"),
        ({"rest": "guessed"}, "rest = 'guessed'"),
        ({"test": jl.Recording(current=[0.0, 1.0], dt=0.1)}, "test is a recording: it belongs to one cell"),
    ],
)
def test_options_that_suit_no_cell_are_refused_at_once(options, words):
    with pytest.raises(ValueError, match=words):
        jl.fit_recordings(["gone.npz", "missing.npz"], **options)


def test_two_files_of_one_name_and_one_path_are_refused():
    for twin in ("b/cell.npz", "a/cell.abf", "a/Cell.npz", "a/cell.npz"):
        with pytest.raises(ValueError, match=r"cell.npz and .* have one name, .*: rename one"):
            named_files(["a/cell.npz", "a/other.npz", twin])
    with pytest.raises(ValueError, match="recordings = 'a.npz': several files are expected"):
        jl.fit_recordings("a.npz")


# --- elsewhere --------------------------------------------------------------------------------------------

SCRIPT = """
import os, sys
print("the script runs")
import jaxlif as jl
from jaxlif.processes import cores, processes
found = jl.fit_recordings(sys.argv[2:], window=(0.0, 1000.0))
print(sorted(found.failed))
for name, fit in found.fits.items():
    fit.save(os.path.join(sys.argv[1], name))
with processes(3) as executor:
    print(executor.submit(os.getenv, "NPROC").result() == str(max(1, cores() // 3)), os.environ.get("NPROC"))
"""


def test_a_script_fits_on_all_cores_and_is_itself_run_once(found, files, tmp_path):
    """A plain script, without a guard: each process has its share of the cores, and this one keeps its settings."""
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if name != "NPROC"}
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path), *map(str, files)]
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert result.stdout.splitlines() == ["the script runs", "['gone', 'silent', 'torn']", "True None"]
    assert same({name: jl.load_fit(tmp_path / name / "fit.json") for name in found.fits}, found.fits)


@pytest.mark.filterwarnings("ignore:::distributed", "ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_cells_run_on_a_dask_cluster(found, files):
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        result = jl.fit_recordings(files, window=(0.0, 1000.0), executor=client.get_executor())
    assert same(result.fits, found.fits) and sorted(result.failed) == sorted(found.failed)
