"""The README's code runs as written, and the tables are those of the results."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block {n}" for n in range(len(BLOCKS))])
def test_the_code_runs_as_written(block, tmp_path, capsys):
    script = tmp_path / "readme.py"
    script.write_text(block, encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout and "nan" not in done.stdout


def test_the_tables_are_those_of_the_results():
    command = [sys.executable, str(ROOT / "experiments" / "tables.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run: python experiments/tables.py"


def test_every_result_has_a_table():
    page = (ROOT / "experiments" / "RESULTS.md").read_text(encoding="utf-8")
    shown = re.findall(r"<!-- results: (\w+) -->", page)
    assert sorted(shown) == sorted(path.stem for path in (ROOT / "experiments" / "results").glob("*.json"))
