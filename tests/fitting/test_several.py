"""Several recordings: each fitted as if it were alone, whatever the others are."""

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
    return jl.fit_recordings(files, window=(0.0, 1000.0))


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
    named = jl.fit_recordings({"x": recording, "y": str(files[4])}, window=(0.0, 1000.0))
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

    fits = fit_each({"a": 0, "b": 1, "c": 2}, fit_one)
    assert list(fits.fits) == ["a", "c"]
    assert fits.failed == {"b": " ".join(str(error).split()) or "ValueError"}


@pytest.mark.parametrize("error", [TypeError, KeyError, ImportError, RuntimeError, KeyboardInterrupt])
def test_a_bug_is_no_bad_cell(error):
    def fit_one(name, cell):
        raise error("x")

    with pytest.raises(error):
        fit_each({"a": 0, "b": 1}, fit_one)


def test_a_bar_counts_the_cells(found, capsys):
    fit_each({"a": 0, "b": 1}, lambda name, cell: found.fits["fast"], progress=True)
    assert "2/2" in capsys.readouterr().err
    fit_each({"a": 0, "b": 1}, lambda name, cell: found.fits["fast"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "hh"}, "model = 'hh'"),
        ({"model": ["lif"]}, r"model = \['lif'\]: the models"),
        ({"bounds": {"tau": (1.0, 2.0)}}, "bounds name 'tau'"),
        ({"drift": True}, "drift is for"),
        ({"rest": "guessed"}, "rest = 'guessed'"),
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
