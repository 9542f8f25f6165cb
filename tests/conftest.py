"""Settings shared by all tests: strict JAX, double precision unless a test asks for both, a warm cache."""

import os
from contextlib import suppress
from pathlib import Path

# Before JAX is imported, and in the environment: what one process has compiled, those that tests start find too.
# Most of what tests compile takes some milliseconds, thousands of times: that is kept as well.
ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax  # noqa: E402
import matplotlib  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

matplotlib.use("Agg")

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    """Run the test once in each precision; the default dtype of JAX follows."""
    with jax.enable_x64(request.param == "float64"):
        yield request.param


@pytest.fixture(scope="session")
def data_folder():
    """The folder of real recordings, or a skip with the reason."""
    folder = os.environ.get("JAXLIF_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("JAXLIF_DATA does not name a folder of recordings (see experiments/data.md)")
    return Path(folder)


@pytest.fixture(scope="session")
def cell_file(tmp_path_factory):
    """Two trials of noise, in a file."""
    from tests.command_line import write

    return write(tmp_path_factory.mktemp("recording") / "cell.npz")


@pytest.fixture(scope="session")
def steps_file(tmp_path_factory):
    """A family of current steps, in a file."""
    from tests.command_line import DT, step_family

    path = tmp_path_factory.mktemp("recording") / "steps.npz"
    np.savez(path, **dict(zip(("current", "voltage", "spikes"), step_family(), strict=True)), dt=DT)
    return path


@pytest.fixture(scope="session")
def stored(tmp_path_factory, cell_file):
    """The folder of a fit of the two trials with report and figures, made on the command line, and what it printed.

    There is one in a run: whichever worker comes first puts it where all find it.
    """
    from tests.command_line import good

    def make(folder):
        (folder / "printed").write_text(good("fit", cell_file, "--out", folder / "out").output, encoding="utf-8")

    place = _once(tmp_path_factory, "stored", make)
    return place / "out", (place / "printed").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def gif_fit(tmp_path_factory):
    """A fit of a "gif" to four repeats of a noise, read back from its file: there is one in a run, as of ``stored``."""
    import jaxlif as jl
    from tests.fitting.gif_cell import TRUTH, recorded

    place = _once(
        tmp_path_factory, "gif", lambda out: jl.fit_recording(recorded(TRUTH), "gif", electrode=None).save(out)
    )
    return jl.load_fit(place / "fit.json")


def _once(tmp_path_factory, name, make):
    """Return a folder that ``make`` has filled in some worker."""
    base = tmp_path_factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    if not place.exists():
        made = tmp_path_factory.mktemp(name)
        make(made)
        with suppress(OSError):  # another worker was faster
            made.rename(place)
    return place
