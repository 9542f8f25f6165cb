"""The README's code runs as written, and the tables are those of the results."""

import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block {n}" for n in range(len(BLOCKS))])
def test_the_code_runs_as_written(block, tmp_path, monkeypatch, capsys):
    """Under the settings that JAX starts with, those of whoever pastes a block, and in an empty folder."""
    monkeypatch.chdir(tmp_path)
    started = jax.enable_x64(False), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard")
    with started[0], started[1], started[2]:
        exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    assert printed and "nan" not in printed


def test_the_tables_are_those_of_the_results():
    command = [sys.executable, str(ROOT / "experiments" / "tables.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run: python experiments/tables.py"


def test_every_result_has_a_table():
    page = (ROOT / "experiments" / "RESULTS.md").read_text(encoding="utf-8")
    shown = re.findall(r"<!-- results: (\w+) -->", page)
    assert sorted(shown) == sorted(path.stem for path in (ROOT / "experiments" / "results").glob("*.json"))
