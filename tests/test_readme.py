"""The code of README and docs runs as written, their links lead somewhere, and the tables are those of the results."""

import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import jaxlif

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
BLOCKS = {  # a block that stands on two pages runs once
    block: f"{name} {n}"
    for name, text in reversed(TEXTS.items())
    for n, block in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
}


@pytest.mark.parametrize("block", BLOCKS, ids=BLOCKS.values())
def test_the_code_runs_as_written(block, tmp_path, monkeypatch, capsys):
    """Under the settings that JAX starts with, those of whoever pastes a block, and in an empty folder."""
    monkeypatch.chdir(tmp_path)
    started = jax.enable_x64(False), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard")
    with started[0], started[1], started[2]:
        exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    assert printed and "nan" not in printed


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_and_named_files_exist(page):
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert not [link for link in links if not (page.parent / link).exists()]
    files = re.findall(r"(?:experiments|notebooks|docs|tests)/[\w./]+\.\w+|`(?:\w+/)*\w+\.py`", text)
    named = [file.strip("`") for file in files]
    assert not [file for file in named if not ((ROOT / file).exists() or (ROOT / "jaxlif" / file).exists())]


def test_the_tables_are_those_of_the_results():
    command = [sys.executable, str(ROOT / "experiments" / "tables.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run: python experiments/tables.py"


def test_every_result_has_a_table():
    page = (ROOT / "experiments" / "RESULTS.md").read_text(encoding="utf-8")
    shown = re.findall(r"<!-- results: (\w+) -->", page)
    assert sorted(shown) == sorted(path.stem for path in (ROOT / "experiments" / "results").glob("*.json"))


def test_the_map_of_the_package_names_what_is_there():
    """``help(jaxlif)``: the first column is names, the files exist, it is one screen."""
    jobs = re.findall(r"^    ([\w, .]+?)(?:  |:|$)", jaxlif.__doc__, re.MULTILINE)
    names = [name for job in jobs for name in re.findall(r"\w+", job)]
    assert len(names) > 20 and not [name for name in names if not hasattr(jaxlif, name)]
    assert all((ROOT / "jaxlif" / file).exists() for file in re.findall(r"[\w/]+\.py", jaxlif.__doc__))
    assert len(jaxlif.__doc__.splitlines()) < 45
