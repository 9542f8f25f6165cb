"""Many f-I curves in one call, on neurons whose curves are known."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.fitting.fi_cells import FICell, half_of
from jaxlif.fitting.pooling import _round
from jaxlif.fitting.population import fit_fi_population, held_out_rmse
from jaxlif.fitting.steady_rate import adapted_rate, noisy_rate

ROOT = Path(__file__).resolve().parent.parent.parent
NEURONS = (
    jl.LIFParams(tau_m=12.0, r_m=0.15, v_rest=-70.0, v_th=-52.0, v_reset=-62.0, t_ref=2.0),
    jl.LIFParams(tau_m=25.0, r_m=0.08, v_rest=-65.0, v_th=-45.0, v_reset=-55.0, t_ref=4.0),
)


def cell(name, params, num, adaptation=0.0):
    currents = np.linspace(0.5, 3.0, num) * float(jl.theory.rheobase(params))
    with jax.enable_x64(True):
        rates = np.asarray(adapted_rate(params, adaptation, jnp.asarray(currents)))
    passive = np.array([-60.0, -30.0, 30.0])
    return FICell(
        name=name, currents=currents, rates=rates, passive_currents=passive,
        passive_voltages=params.v_rest + params.r_m * passive, v_rest=params.v_rest,
    )  # fmt: skip


@pytest.fixture(scope="module")
def cells():
    return [cell("a", NEURONS[0], 12), cell("b", NEURONS[1], 9)]


@pytest.fixture(scope="module")
def found(cells):
    return fit_fi_population(cells)


def test_curves_without_noise_are_met_and_give_the_resistance_back(found):
    assert found.names == ("a", "b") and not found.failed
    # A curve without noise is met to rounding of the optimiser, 0.05 Hz of some 100.
    assert (found.rmse < 0.05).all(), found.rmse
    np.testing.assert_allclose(found.params.r_m, [n.r_m for n in NEURONS], rtol=1e-3)


def test_a_second_population_of_the_same_size_is_not_compiled_again(cells, found):
    before = _round._cache_size()
    fit_fi_population([replace(cell, rates=0.9 * cell.rates) for cell in cells], seed=1)
    assert _round._cache_size() == before


def test_an_adapting_cell_needs_adaptation():
    adapting = [cell("c", NEURONS[0], 12, adaptation=2.0), cell("d", NEURONS[1], 9, adaptation=1.0)]
    with_it, without = (fit_fi_population(adapting, adaptation=flag) for flag in (True, False))
    assert (with_it.rmse < 0.1).all() and (with_it.rmse < without.rmse).all()


def test_a_bad_cell_is_listed_and_stops_nobody(cells, found):
    bad = [
        replace(cells[0], name="nan", rates=cells[0].rates * np.nan),
        replace(cells[0], name="silent", rates=0 * cells[0].rates),
    ]
    beside = fit_fi_population([bad[0], *cells, bad[1]])
    assert beside.names == ("a", "b")
    assert beside.failed == {
        "nan": "cell nan: rates[0] is not a finite number of Hz",
        "silent": "cell silent: rates are 0 Hz at every current: at least one must be above 0 Hz",
    }
    # Beside others a cell is padded to another length: the same to the optimiser's rounding.
    np.testing.assert_allclose(beside.params.r_m, found.params.r_m, rtol=1e-6)


def test_the_adapted_rate_solves_its_equation_and_has_its_gradient():
    with jax.enable_x64(True):
        params, currents = NEURONS[0], jnp.linspace(130.0, 500.0, 7)
        rate = adapted_rate(params, 1.5, currents)
        closed = jl.theory.firing_rate(params, currents - 1.5 * rate)
        np.testing.assert_allclose(rate, closed, rtol=1e-9)

        @jax.jit
        def total(tau_m, a):
            return adapted_rate(replace(params, tau_m=tau_m), a, currents).sum()

        point = [12.0, 1.5]
        gradient = jax.grad(total, (0, 1))(*point)
        for i, step in ((0, 1e-4), (1, 1e-5)):
            up, down = (total(*(x + sign * step * (i == k) for k, x in enumerate(point))) for sign in (1, -1))
            assert gradient[i] == pytest.approx(float(up - down) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("adaptation", [None, 1.5])
@pytest.mark.parametrize("noise", [0.3, 3.0, 60.0])
def test_the_noisy_rate_is_the_average_over_a_normal_current(noise, adaptation):
    """Against a sum over 200001 currents: 16 nodes leave 1e-3 Hz where the plain curve has its infinite slope."""
    x = np.linspace(-8.0, 8.0, 200_001)
    density = np.exp(-0.5 * x**2) / np.sqrt(2.0 * np.pi) * (x[1] - x[0])
    params, currents = NEURONS[0], jnp.array([60.0, 118.0, 120.0, 123.0, 300.0])
    for current, rate in zip(currents, noisy_rate(params, noise, currents, adaptation), strict=True):
        shifted = current + noise * jnp.asarray(x)
        plain = (
            jl.theory.firing_rate(params, shifted) if adaptation is None else adapted_rate(params, adaptation, shifted)
        )
        assert float(rate) == pytest.approx(float(density @ np.asarray(plain)), abs=1e-3)


def test_the_noisy_rate_has_its_gradient():
    params, currents = NEURONS[0], jnp.array([110.0, 121.0, 200.0])

    @jax.jit
    def total(v_th, noise):
        return noisy_rate(replace(params, v_th=v_th), noise, currents, 1.5).sum()

    # The quadrature's limits do not move with the gradient: what they leave out, 1e-6 of the rate, bounds the error.
    gradient = jax.grad(total, (0, 1))(-52.0, 8.0)
    for i, step in ((0, 1e-4), (1, 1e-3)):
        up, down = (total(*(x + sign * step * (i == k) for k, x in enumerate((-52.0, 8.0)))) for sign in (1, -1))
        assert gradient[i] == pytest.approx(float(up - down) / (2 * step), rel=1e-4)


def test_a_half_is_predicted_without_anything_that_was_learned_from_it(cells):
    """Other rates in the odd halves of all cells change no prediction of those halves."""

    def other_odd(cell):
        odd = np.isin(cell.currents, half_of(cell, 1).currents)
        return replace(cell, rates=np.where(odd, 0.7 * cell.rates, cell.rates))

    before, after = (held_out_rmse(c, noise=False) for c in (cells, [other_odd(cell) for cell in cells]))
    for cell, a, b in zip(cells, before.predicted, after.predicted, strict=True):
        odd = np.isin(cell.currents, half_of(cell, 1).currents)
        np.testing.assert_array_equal(a[odd], b[odd])
        assert np.abs(a[~odd] - b[~odd]).max() > 1.0


def test_a_mesh_gives_the_same_fits():
    """Three cells on eight devices, two of them empty of work, against one device; rounding differs by the layout."""
    code = """
import jax, numpy as np
from tests.fitting.test_population import NEURONS, cell, fit_fi_population, replace
assert jax.device_count() == 8
cells = [cell("a", NEURONS[0], 9), cell("b", NEURONS[1], 9), cell("c", NEURONS[0], 9)]
cells.insert(1, replace(cells[0], name="bad", rates=np.full(9, np.nan)))
mesh = jax.make_mesh((8,), ("cells",), axis_types=(jax.sharding.AxisType.Auto,))
spread, single = (fit_fi_population(cells, noise=False, num_starts=2, mesh=m) for m in (mesh, None))
assert spread.names == ("a", "b", "c") and set(spread.failed) == {"bad"}
for x, y in zip(jax.tree.leaves(spread.params), jax.tree.leaves(single.params)):
    np.testing.assert_allclose(x, y, rtol=1e-6)
"""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    flags["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # what is tested is how the cells are spread
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | flags, cwd=ROOT, timeout=300)
