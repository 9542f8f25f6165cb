"""Imports point one way, in no circle, and the package opens neither matplotlib nor a reader's library."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "jaxlif"


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


@cache
def imported(name):
    """Return the modules of jaxlif that a module imports anywhere, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {full if full in MODULES else node.module for full in names}
    return frozenset(other for other in found if other in MODULES)


@cache
def reached(name):
    """Return all modules of jaxlif that importing a module executes, but the checks that stand at every door."""
    seen, todo = set(), [name]
    while todo:
        for other in imported(todo.pop()) - seen - {"jaxlif.checks"}:
            seen.add(other)
            todo.append(other)
    return frozenset(seen)


def inside(name, *packages):
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def test_the_reader_of_imports_sees_them():
    assert "jaxlif.neurons.lif" in imported("jaxlif.fitting.fit_recording")
    assert "jaxlif.report" in imported("jaxlif.cli"), "an import inside a function counts"
    assert "jaxlif.surrogate" in reached("jaxlif.fitting.fit_recording")


MODELS = ("jaxlif.neurons", "jaxlif.synapses", "jaxlif.networks")
TOP = tuple(f"jaxlif.{name}" for name in ("cli", "commands", "options", "report", "traces", "pictures"))


@pytest.mark.parametrize("name", ["files", "stimulus", "surrogate", "spiketrains", "losses", "theory"])
def test_the_ground_knows_nothing_of_the_package(name):
    assert all(inside(other, f"jaxlif.{name}") for other in reached(f"jaxlif.{name}"))


@pytest.mark.parametrize("name", ["jaxlif.fitting.bounds", "jaxlif.fitting.fit"])
def test_the_loop_knows_no_neuron(name):
    assert reached(name) <= {"jaxlif.fitting.bounds", "jaxlif.compiled"}


def test_plotting_takes_arrays():
    assert not reached("jaxlif.plotting")


def test_recordings_know_no_model():
    for name in MODULES:
        if inside(name, "jaxlif.recordings"):
            assert all(inside(other, "jaxlif.recordings", "jaxlif.files") for other in reached(name)), name


def test_neurons_below_synapses_below_networks():
    for name in MODULES:
        if inside(name, "jaxlif.neurons"):
            assert not any(inside(o, "jaxlif.synapses", "jaxlif.networks", "jaxlif.fitting") for o in reached(name)), (
                name
            )
        if inside(name, "jaxlif.synapses"):
            assert not any(inside(o, "jaxlif.networks", "jaxlif.fitting") for o in reached(name)), name
        if inside(name, "jaxlif.networks"):
            above = {o for o in reached(name) if inside(o, "jaxlif.fitting", "jaxlif.recordings")}
            assert above <= {"jaxlif.fitting.bounds", "jaxlif.fitting.fit"}, name


def test_exporters_know_neurons_and_synapses_alone():
    for name in MODULES:
        if inside(name, "jaxlif.interop.export", "jaxlif.interop.conventions"):
            known = ("jaxlif.interop", "jaxlif.neurons", "jaxlif.surrogate", "jaxlif.synapses")
            assert all(inside(o, *known) for o in reached(name)), name


def test_nobody_imports_the_command_line_or_the_report():
    for name in MODULES:
        assert name in TOP or not imported(name) & set(TOP), name
    assert not {"jaxlif.cli", "jaxlif.commands", "jaxlif.options"} & reached("jaxlif.report")


def test_no_module_imports_the_package_that_gathers_it():
    for name in MODULES:
        assert "jaxlif" not in imported(name), name


def test_no_circle():
    circles = [name for name in MODULES if name in reached(name)]
    assert not circles


def test_a_star_brings_what_the_docstring_lists():
    brought = {}
    exec("from jaxlif.networks import *", brought)
    text = MODULES["jaxlif.networks"].read_text()
    lines = [line for line in ast.get_docstring(ast.parse(text)).splitlines() if line.startswith("    ")]
    listed = [name for line in lines for name in re.split(r"\s{2,}", line.strip())[0].split(", ")]
    assert sorted(listed) == sorted(brought.keys() - {"__builtins__"})


def test_importing_loads_no_library_of_a_single_task():
    """One after another in one process: what a module loads is still there after the next."""
    heavy = (
        "matplotlib",
        "pyabf",
        "pynwb",
        "h5py",
        "igor2",
        "jinja2",
        "nir",
        "orbax",
        "sklearn",
        "tensorflow",
        "scipy",
        "tonic",
    )
    code = f"""
import importlib, sys
for name in ("jaxlif", "jaxlif.recordings", "jaxlif.networks", "jaxlif.networks.events", "jaxlif.cli"):
    importlib.import_module(name)
    print(name, [m for m in {heavy} if m in sys.modules])
import matplotlib
print("matplotlib", "matplotlib" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    *lines, witness = result.stdout.splitlines()
    assert len(lines) == 5 and all(line.endswith(" []") for line in lines), lines
    assert witness == "matplotlib True"
