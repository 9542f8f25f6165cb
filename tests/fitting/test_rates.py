"""One table of rates, and many in one call, on neurons whose curves are known."""

import json
from dataclasses import asdict, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif import FICell
from jaxlif.fitting import fi_curve
from jaxlif.fitting.fi_curve import steady_rate
from jaxlif.fitting.rates import typical_resistance

NEURONS = (
    jl.LIFParams(tau_m=12.0, r_m=0.15, v_rest=-70.0, v_th=-52.0, v_reset=-62.0, t_ref=2.0),
    jl.LIFParams(tau_m=25.0, r_m=0.08, v_rest=-65.0, v_th=-67.0, v_reset=-77.0, t_ref=4.0),  # which fires at rest
)
TRUTH = jl.LIFParams(tau_m=17.0, r_m=0.12, v_rest=-68.0, v_th=-51.0, v_reset=-60.0, t_ref=3.2)


def cell(name, params, num, adaptation=0.0):
    currents = np.linspace(-60.0, 300.0, num) + float(jl.theory.rheobase(params))
    with jax.enable_x64(True):
        rates = np.asarray(steady_rate(params, jnp.asarray(currents), adaptation))
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
    return jl.fit_fi_population(cells)


def test_curves_without_noise_are_met_and_give_the_resistance_back(found):
    assert found.names == ("a", "b") and not found.failed
    # A curve without noise is met to rounding of the optimiser, 0.05 Hz of some 100.
    assert (found.rmse < 0.05).all(), found.rmse
    np.testing.assert_allclose(found.params.r_m, [n.r_m for n in NEURONS], rtol=1e-3)


def test_without_passive_steps_the_resistance_is_the_usual_one_and_the_curve_the_same(cells):
    """Rates know voltages over r_m only: whatever r_m is taken, rheobase and rates are those of the curve."""
    alone = jl.fit_fi_population(cells, passive=None)
    assert (alone.rmse < 0.3).all(), "priors in mV pull a little where r_m is another"
    rheobases = np.asarray(jl.theory.rheobase(alone.params))
    np.testing.assert_allclose(rheobases[0], float(jl.theory.rheobase(NEURONS[0])), rtol=0.02)
    # The first starts at 120 pA, where cells of the cortex have 130 MΩ; the other fires at rest: as from 10 pA.
    assert alone.params.r_m[0] == pytest.approx(0.13, rel=0.1) and alone.params.r_m[1] == pytest.approx(0.57, rel=0.1)


def test_real_resistances_from_the_f_i_curve_alone(data_folder):
    entries = json.loads((data_folder / "recordings" / "allen_fi_curves.json").read_text(encoding="utf-8"))["cells"]
    close = []
    for entry in entries:
        sweeps = [s for s in entry["sweeps"] if s["spikes"] == 0 and s["current"] < 0 and s["v_steady"] is not None]
        slope = np.polyfit([s["current"] for s in sweeps], [s["v_steady"] - s["v_rest"] for s in sweeps], 1)[0]
        firing = [s["current"] for s in entry["sweeps"] if s["spikes"] > 0]
        close.append(abs(typical_resistance(min(firing)) / slope - 1.0) < 0.25)
    # They are the cells that the two numbers of the power law are from; of one by the others it is 62 %.
    assert np.mean(close) >= 0.55


def test_a_second_population_of_the_same_size_is_not_compiled_again(cells, found):
    before = fi_curve._round._cache_size()
    jl.fit_fi_population([replace(cell, rates=0.9 * cell.rates) for cell in cells], seed=1)
    assert fi_curve._round._cache_size() == before


def test_a_rheobase_that_varies_is_found_and_foretells_the_rates_between():
    """Against sums over 20001 currents of a normal density: every second of 23 currents is fitted, 33 pA apart."""
    x, table, spreads = np.linspace(-8.0, 8.0, 20_001), cell("", NEURONS[0], 12), (15.0, 30.0)  # pA
    density = np.exp(-0.5 * x**2) / np.sqrt(2.0 * np.pi) * (x[1] - x[0])
    currents = np.linspace(table.currents[0], table.currents[-1], 23)
    rates = [np.asarray(jl.theory.firing_rate(NEURONS[0], currents[:, None] + s * x)) @ density for s in spreads]
    varied = [replace(table, name=name, rates=f[::2]) for name, f in zip("ab", rates, strict=True)]
    fitted, plain = (jl.fit_fi_population(varied, noise=noise) for noise in (True, False))
    np.testing.assert_allclose(fitted.noise, spreads, rtol=0.02)  # the prior of two cells pulls by less
    for name, rate in zip("ab", rates, strict=True):
        assert np.abs(fitted.rates(name, currents) - rate).max() < 0.1  # of some 100 Hz
        assert np.abs(plain.rates(name, currents) - rate).max() > 2.0


def test_an_adapting_cell_needs_adaptation():
    adapting = [cell("c", NEURONS[0], 12, adaptation=2.0), cell("d", NEURONS[1], 9, adaptation=1.0)]
    with_it, without = (jl.fit_fi_population(adapting, adaptation=flag) for flag in (True, False))
    assert (with_it.rmse < 0.1).all() and (with_it.rmse < without.rmse).all()


def test_a_bad_cell_is_listed_and_stops_nobody(cells, found):
    bad = [
        replace(cells[0], name="nan", rates=cells[0].rates * np.nan),
        replace(cells[0], name="silent", rates=0 * cells[0].rates),
    ]
    beside = jl.fit_fi_population([bad[0], *cells, bad[1]])
    assert beside.names == ("a", "b")
    assert beside.failed == {
        "nan": "cell nan: rates[0] = nan Hz: rates must be finite",
        "silent": "cell silent: rates are 0 Hz at every current: at least one must be above 0 Hz",
    }
    # Beside others a cell is padded to another length: the same to the optimiser's rounding.
    np.testing.assert_allclose(beside.params.r_m, found.params.r_m, rtol=1e-6)


def test_rates_on_the_closed_form_are_fitted_exactly_in_any_order():
    currents = np.random.default_rng(0).permutation(np.linspace(50.0, 600.0, 24))
    rates = np.asarray(jl.theory.firing_rate(TRUTH, currents))
    result = jl.fit_rates(
        currents, rates, replace(TRUTH, v_th=-40.0, v_reset=-70.0, t_ref=1.0, tau_m=10.0), free_tau_m=True
    )
    for name, value in asdict(TRUTH).items():
        assert getattr(result.params, name) == pytest.approx(value, rel=1e-6), name
    assert result.scores["f_i"]["rmse_held_out"] < 1e-3


def test_a_free_time_constant_does_no_worse_than_any_given_one():
    currents = np.array([0.0, 100.0, 150.0, 200.0, 250.0, 300.0, 350.0, 400.0])
    rates = np.array([0.0, 0.0, 2.0, 18.0, 33.0, 45.0, 57.0, 66.0])  # a flat valley, down to the end of the bounds
    given = [jl.fit_rates(currents, rates, replace(TRUTH, tau_m=tau)).scores["f_i"]["rmse"] for tau in (20.0, 499.0)]
    for seed in (0, 1):
        free = jl.fit_rates(currents, rates, TRUTH, free_tau_m=True, seed=seed)
        assert free.scores["f_i"]["rmse"] <= min(given) * (1.0 + 1e-9)  # rounding
        assert any("tau_m = 500 ms lies at the end of its bounds" in note for note in free.warnings)


def test_a_table_of_rates_with_a_block_is_fitted_by_its_rising_branch():
    currents = np.linspace(0.0, 600.0, 13)
    rates = np.asarray(jl.theory.firing_rate(TRUTH, currents))
    blocked = jl.fit_rates(currents, np.where(currents > 450.0, 0.3 * rates, rates), TRUTH)
    for name in ("v_th", "v_reset", "t_ref"):  # exact rates: the optimum is the truth
        assert getattr(blocked.params, name) == pytest.approx(getattr(TRUTH, name), rel=1e-3)
    assert blocked.scores["f_i"]["rmse"] < 1e-2 and len(blocked.curve["current_pA"]) == 10
    assert any("the 3 levels from 500 pA on are left out" in note for note in blocked.warnings)
    with pytest.raises(ValueError, match="as in depolarisation block.*fewer than the 3 that a fit needs"):
        jl.fit_rates(currents[:4], np.array([0.0, 90.0, 40.0, 0.0]), TRUTH)


def test_a_threshold_beyond_its_usual_bounds_is_said_and_its_file_can_be_read(tmp_path):
    currents = np.linspace(0.0, 600.0, 13)
    high = replace(TRUTH, r_m=0.6, v_th=TRUTH.v_rest + 200.0, v_reset=TRUTH.v_rest + 150.0)  # a resistance ill guessed
    result = jl.fit_rates(currents, np.asarray(jl.theory.firing_rate(high, currents)), high)
    assert result.params.v_th == pytest.approx(high.v_th, rel=1e-6)  # exact rates
    assert any("lies outside its bounds" in note for note in result.warnings)
    result.save(tmp_path)
    assert jl.load_fit(tmp_path / "fit.json").params == result.params


def test_rates_that_no_neuron_fires_at_are_named():
    currents = np.linspace(0.0, 500.0, 11)
    falling = jl.fit_rates(currents, 50.0 - currents / 10.0 + 1.0, jl.LIFParams())
    assert any("no LIF" in note for note in falling.warnings)
    # Rates and currents in each other's column.
    swapped = jl.fit_rates(np.where(currents > 200.0, currents / 4.0, 0.0), currents, jl.LIFParams())
    assert any("fires without current" in note for note in swapped.warnings)
    with pytest.raises(ValueError, match=r"rates\[10\] = -1 Hz: rates must be"):
        jl.fit_rates(currents, np.append(currents[:-1], -1.0), jl.LIFParams())
    with pytest.raises(ValueError, match=r"currents has shape \(10,\) and rates \(11,\)"):
        jl.fit_rates(currents[1:], currents, jl.LIFParams())
    with pytest.raises(ValueError, match=r"r_m = 150: the start must lie inside its bounds"):
        jl.fit_rates(currents, currents / 10.0, replace(TRUTH, r_m=150.0))
