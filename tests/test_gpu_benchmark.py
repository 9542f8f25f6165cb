"""The benchmark for a card that is lent: what fails is said and takes nothing else along."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "experiments" / "benchmarks"


@pytest.fixture(scope="module")
def gpu():
    path = list(sys.path)
    sys.path.insert(0, str(FOLDER))
    try:
        import gpu

        yield gpu
    finally:
        sys.path[:] = path


def test_a_piece_that_fails_is_named_and_the_others_stay(gpu):
    def fails():
        raise MemoryError("2 TiB\nand more")

    def absent():
        raise SystemExit("the recording is not there")

    told = []
    gpu.work(iter([("a", fails), ("b", lambda: [gpu.claim("b", 1.0)]), ("c", absent)]), told.append)
    assert [row.get("could_not", row.get("metric")) for row in told] == [
        "a: MemoryError: 2 TiB",
        "b",
        "c: SystemExit: the recording is not there",
    ]


def test_a_part_that_is_stopped_keeps_what_it_measured(gpu):
    lines = "".join(json.dumps(row) + "\n" for row in (gpu.claim("x", 1.0), {"could_not": "y: OSError: z"}))
    claims, missing = gpu.sorted_out("layers", lines + '{"metric": "cut', "stopped after its 80 s")
    assert [c["metric"] for c in claims] == ["x"]
    assert missing == ["layers: y: OSError: z", "layers: stopped after its 80 s after 'x'"]


def test_a_part_measured_again_takes_the_place_of_its_old_numbers(gpu):
    old = [gpu.claim("a: of 3 spikes, steps that differ", 1.0, "", "<= 0"), gpu.claim("epoch", 2.0)]
    new = [gpu.claim("a: of 3 spikes, steps that differ", 0.0, "", "<= 0")]
    claims, missing = gpu.replaced("parity", old, ["parity: stopped", "layers: stopped"], new, [])
    assert missing == ["layers: stopped"]
    assert {c["metric"]: c["value"] for c in claims} == {"epoch": 2.0, new[0]["metric"]: 0.0, gpu.AGREE: 100.0}


def test_what_could_not_be_done_is_in_the_file(gpu, tmp_path):
    path = gpu.write_claims("x", [gpu.claim("m", 1.0)], folder=tmp_path, could_not=["networks: MemoryError: 2 TiB"])
    assert json.loads(path.read_text())["could_not"] == ["networks: MemoryError: 2 TiB"]


def test_a_gradient_is_compared_parameter_by_parameter(gpu):
    """A small parameter's error is not lost beside a large one."""
    import numpy as np

    wanted = [np.array([1000.0, 1.0]), np.array([1e-3])]
    assert gpu.apart([w.copy() for w in wanted], wanted) == 0.0
    assert gpu.apart([wanted[0], np.array([1.5e-3])], wanted) == pytest.approx(0.5)


def test_without_a_gpu_there_is_no_figure_of_one(tmp_path):
    command = [sys.executable, str(FOLDER / "gpu.py"), "--out", str(tmp_path), "--only", "launch"]
    environment = {"JAX_PLATFORMS": "cpu", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(FOLDER.parent.parent)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=100)
    assert done.returncode == 1
    assert done.stderr.startswith("no GPU: JAX sees the CPU alone")
    assert not list(tmp_path.iterdir())
