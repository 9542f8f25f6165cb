"""Many f-I curves in one call, on neurons whose curves are known."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.fitting.population import FICell, adapted_rate, fit_fi_population

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


def test_curves_without_noise_are_met_and_give_the_resistance_back(cells):
    found = fit_fi_population(cells)
    assert found.names == ("a", "b") and not found.failed
    # A curve without noise is met to rounding of the optimiser, 0.05 Hz of some 100.
    assert (found.rmse < 0.05).all(), found.rmse
    np.testing.assert_allclose(found.params.r_m, [n.r_m for n in NEURONS], rtol=1e-3)


def test_an_adapting_cell_needs_adaptation():
    adapting = [cell("c", NEURONS[0], 14, adaptation=2.0)]
    with_it, without = (fit_fi_population(adapting, adaptation=flag) for flag in (True, False))
    assert with_it.rmse[0] < 0.1 and with_it.rmse[0] < without.rmse[0]


def test_a_bad_cell_is_listed_and_stops_nobody(cells):
    bad = [
        replace(cells[0], name="nan", rates=cells[0].rates * np.nan),
        replace(cells[0], name="silent", rates=0 * cells[0].rates),
    ]
    found = fit_fi_population([bad[0], *cells, bad[1]])
    alone = fit_fi_population(cells)
    assert found.names == ("a", "b") and set(found.failed) == {"nan", "silent"}
    # Beside others a cell is padded to another length: the same to the optimiser's rounding.
    np.testing.assert_allclose(found.params.r_m, alone.params.r_m, rtol=1e-6)


def test_the_adapted_rate_solves_its_equation_and_has_its_gradient():
    with jax.enable_x64(True):
        params, currents = NEURONS[0], jnp.linspace(130.0, 500.0, 7)
        rate = adapted_rate(params, 1.5, currents)
        closed = jl.theory.firing_rate(params, currents - 1.5 * rate)
        np.testing.assert_allclose(rate, closed, rtol=1e-9)

        def total(tau_m, a):
            return adapted_rate(replace(params, tau_m=tau_m), a, currents).sum()

        for i, step in ((0, 1e-4), (1, 1e-5)):
            point = [12.0, 1.5]
            up, down = (total(*(x + sign * step * (i == k) for k, x in enumerate(point))) for sign in (1, -1))
            assert jax.grad(total, i)(*point) == pytest.approx(float(up - down) / (2 * step), rel=1e-6)
