"""The file that an experiment writes: its fixed form, and targets judged by computation."""

import importlib.util
import json
from importlib.metadata import version
from pathlib import Path

import jax
import pytest

PATH = Path(__file__).resolve().parent.parent / "experiments" / "claims.py"
SPEC = importlib.util.spec_from_file_location("claims", PATH)
claims = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(claims)

claim, write_claims = claims.claim, claims.write_claims


@pytest.mark.parametrize(
    ("value", "target", "reached"),
    [
        (96.0, ">= 96", True),
        (95.999, ">= 96", False),
        (96.0, "> 96", False),
        (3.1, "<= 3.1", True),
        (3.2, "<=3.1", False),
        (1e-10, "< 1e-9", True),
        (-2.0, "> -3.5", True),
        (float("nan"), ">= 0", False),
        (1.0, None, None),
    ],
)
def test_reached_is_computed(value, target, reached):
    assert claim("m", value, "mV", target)["reached"] is reached


@pytest.mark.parametrize("target", ["96", "about 96", ">= ninety", "= 3", ">= 1 mV", ""])
def test_other_targets_are_refused(target):
    with pytest.raises(ValueError, match="target must be a comparison"):
        claim("m", 1.0, "mV", target)


def test_the_fixed_form(tmp_path):
    error = claim("error", 0.5, "mV", "<= 1", sd=0.1, seeds=3)
    path = write_claims("x", [error], folder=tmp_path, command="python x.py")
    assert path == tmp_path / "x.json"
    record = json.loads(path.read_text())
    assert list(record) == ["command", "device", "versions", "claims"]
    assert record["command"] == "python x.py"
    assert record["device"].startswith(jax.devices()[0].platform)
    assert list(record["versions"]) == ["jax", "jaxlib", "optax", "numpy", "jaxlif", "python"]
    assert record["versions"]["jax"] == version("jax")
    assert record["claims"] == [
        {"metric": "error", "value": 0.5, "unit": "mV", "target": "<= 1", "reached": True, "sd": 0.1, "seeds": 3}
    ]


def test_numbers_of_arrays_are_written_as_numbers(tmp_path):
    value = jax.numpy.asarray(0.25)
    path = write_claims("x", [claim("m", value, sd=value)], folder=tmp_path)
    (written,) = json.loads(path.read_text())["claims"]
    assert (written["value"], written["sd"], written["target"], written["reached"]) == (0.25, 0.25, None, None)


def test_command_is_relative_to_the_repository(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", [str(PATH.with_name("digits.py")), "--seeds", "5"])
    record = json.loads(write_claims("x", [], folder=tmp_path).read_text())
    assert record["command"] == "python experiments/digits.py --seeds 5"


def test_a_failed_run_leaves_the_earlier_result(tmp_path):
    path = write_claims("x", [claim("m", 1.0)], folder=tmp_path)
    before = path.read_text()
    with pytest.raises(ValueError, match="JSON compliant"):
        write_claims("x", [claim("m", float("nan"))], folder=tmp_path)

    class Broken:
        def savefig(self, path, **_):
            path.write_text("half a figure")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_claims("x", [claim("m", 2.0)], Broken(), folder=tmp_path)
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_the_figure_lies_beside(tmp_path):
    class Figure:
        def savefig(self, path, **_):
            path.write_bytes(b"png")

    write_claims("x", [], Figure(), folder=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.json", "x.png"]


def test_the_table_has_a_line_for_each_claim():
    lines = claims.table([claim("a", 1.0, "mV", "<= 1"), claim("b", 2.0)]).splitlines()
    assert lines[0].split() == ["a", "1", "mV", "<=", "1", "reached"]
    assert lines[1].split() == ["b", "2"]


def test_over_seeds_is_the_mean_with_its_standard_deviation():
    found = claims.over_seeds("accuracy", [95.0, 96.0, 100.0], "%", ">= 97")
    assert found == claim("accuracy", 97.0, "%", ">= 97", sd=7.0**0.5, seeds=3)  # (4 + 1 + 9) / (3 - 1)
    assert found["reached"] is True
    assert claims.over_seeds("rate", [3.0]) == claim("rate", 3.0, sd=None, seeds=1)


def test_publishing_draws_only_what_is_written(capsys):
    claims.publish("nothing", [claim("a", 1.0)], lambda: pytest.fail("drawn"), write=False)
    assert capsys.readouterr().out.startswith("a ")
