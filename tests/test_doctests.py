"""Every example of every docstring runs, under the same strict JAX as the tests."""

import doctest
import importlib
import pkgutil

import jax
import pytest

import jaxlif

NAMES = ["jaxlif"] + [module.name for module in pkgutil.walk_packages(jaxlif.__path__, "jaxlif.")]


def examples(name):
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [test for test in finder.find(importlib.import_module(name)) if test.examples]


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_of(name):
    assert jax.config.jax_enable_x64
    runner = doctest.DocTestRunner(verbose=False)
    report = []
    for test in examples(name):
        runner.run(test, out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)


def test_examples_are_found():
    """An empty list would pass silently: most modules have examples, and one that fails is noticed."""
    assert sum(len(examples(name)) > 0 for name in NAMES) >= 20
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert doctest.DocTestRunner(verbose=False).run(wrong, out=lambda text: None).failed == 1
