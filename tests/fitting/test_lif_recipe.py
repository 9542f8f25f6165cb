"""What a family of steps may hide: a rest that drifts, a block, rates that no LIF fires at, a reset at its bounds."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.fitting.data import Data, Options
from jaxlif.fitting.fit_recording import BOUNDS
from jaxlif.fitting.lif_recipe import step_membrane
from tests.fitting.test_fit_recording import DT, LEVELS, TRUTH, step_recording


@pytest.fixture(scope="module")
def steps():
    """Thirteen steps from -60 to 420 pA, 100 to 600 ms, with the spikes of the true neuron."""
    cell = step_recording(TRUTH, LEVELS)
    return replace(cell, spikes=cell.voltage > 10.0)


@pytest.fixture(scope="module")
def plain(steps):
    return jl.fit_recording(steps)


def test_a_rest_that_drifts_is_no_response_to_the_current(steps, plain):
    """Offsets of whole sweeps move v_rest, v_th and v_reset by the middle one and nothing else."""
    offsets = np.linspace(0.0, 9.0, len(LEVELS))[:, None]
    drifting = jl.fit_recording(replace(steps, voltage=steps.voltage + offsets))
    moved = {name: 4.5 for name in ("v_rest", "v_th", "v_reset")}
    for name in ("tau_m", "r_m", "t_ref", *moved):
        # The same data up to rounding; L-BFGS stops within 1e-7 of its loss.
        assert getattr(drifting.params, name) == pytest.approx(
            getattr(plain.params, name) + moved.get(name, 0.0), rel=1e-4
        )
    low, high = drifting.intervals["v_rest"]
    assert low < plain.params.v_rest and plain.params.v_rest + 9.0 < high, "every sweep's own"
    assert any("the rest moves by 9 mV from sweep to sweep" in note for note in drifting.warnings)
    # Judged as it was fitted, each sweep at its own rest.
    explained = [fit.scores["membrane"]["voltage_variance_explained"] for fit in (plain, drifting)]
    assert min(explained) > 0.999 and not any("explains only" in note for note in drifting.warnings)
    assert not any("the rest moves" in note for note in plain.warnings)


def test_a_holding_current_that_differs_by_sweep_is_no_drift():
    """Each sweep is held elsewhere, by up to 40 pA; the steps are what is fitted all the same."""
    holding = np.linspace(-40.0, 0.0, len(LEVELS))
    current = np.array(step_recording(TRUTH, LEVELS).current) + holding[:, None]
    _, output = jax.vmap(lambda i: jl.simulate(jl.LIF(dt=DT), TRUTH, i))(current)
    cell = jl.Recording(current=current, voltage=output.v, spikes=output.spikes, dt=DT).window(60.0, 700.0)
    params, estimate, sweeps, notes = step_membrane(Data.of(cell, cell.spikes), Options((60.0, 700.0), BOUNDS))
    # 60 ms, three and a half time constants, bring the start to within 3 % of what 40 pA do.
    for name in ("tau_m", "r_m", "v_rest"):
        assert getattr(params, name) == pytest.approx(getattr(TRUTH, name), rel=0.01), name
    assert not any("the rest moves" in note for note in notes)


def test_a_baseline_full_of_spikes_is_no_rest(steps):
    """A drive of 142.6 pA that nobody recorded: the cell fires every 78 ms, in most sweeps at another phase."""
    hidden = np.full(steps.current.shape, 142.6)
    hidden[:, :200] += 24.0 * np.abs(np.arange(len(LEVELS)) - 1.0)[:, None]
    _, output = jax.vmap(lambda i: jl.simulate(jl.LIF(dt=DT), TRUTH, i))(steps.current + hidden)
    cell = replace(steps, voltage=output.v, spikes=output.spikes)
    assert np.ptp(np.median(np.asarray(output.v)[:, 500:1000], axis=1)) > 2.0, "what looks like a drift"
    params, estimate, sweeps, notes = step_membrane(Data.of(cell, cell.spikes), Options((0.0, 700.0), BOUNDS))
    assert sweeps.tolist() == [0, 1], "what hyperpolarises enough to silence the cell is fitted all the same"
    assert any("the rest cannot be measured in 13 of 13 sweeps" in note for note in notes)
    assert not any(text in note for note in notes for text in ("rest moves", "rectifies", "not positive"))
    # The drive of the fitted sweep is one constant, and there is no noise: its rest is where the drive would hold it.
    assert params.v_rest == pytest.approx(TRUTH.v_rest + 142.6 * TRUTH.r_m, abs=0.1)
    assert (params.tau_m, params.r_m) == pytest.approx((TRUTH.tau_m, TRUTH.r_m), rel=0.02)


@pytest.mark.parametrize("heard", [False, True])
def test_a_hum_in_the_record_of_the_current_is_none_in_the_cell(steps, heard):
    """6 pA of 50 Hz that the cell does or does not receive: the membrane is its own."""
    phases = 0.7 * np.arange(len(LEVELS))[:, None]
    current = steps.current + 6.0 * np.sin(0.1 * np.pi * DT * np.arange(steps.current.shape[1]) + phases)
    _, output = jax.vmap(lambda i: jl.simulate(jl.LIF(dt=DT), TRUTH, i))(current if heard else steps.current)
    noise = np.random.default_rng(1).standard_normal((2, *current.shape))
    cell = replace(steps, current=current + noise[0], voltage=output.v + 0.05 * noise[1], spikes=output.spikes)
    params, estimate, sweeps, notes = step_membrane(Data.of(cell, cell.spikes), Options((0.0, 700.0), BOUNDS))
    for name in ("tau_m", "r_m", "v_rest"):
        # Noise of 1 pA and 0.05 mV; where only the record hums, fitted as it is it gives a tau_m of 19.7 ms.
        assert getattr(params, name) == pytest.approx(getattr(TRUTH, name), rel=0.01), name
    low, high = estimate.intervals()["tau_m"]
    assert low < TRUTH.tau_m < high


def test_the_falling_branch_of_a_block_is_left_out_and_said(steps, plain):
    spikes = np.array(steps.spikes)
    for sweep, last in ((10, 300.0), (11, 200.0), (12, 120.0)):
        spikes[sweep, round(last / DT) :] = False
    silent = np.array(steps.voltage)
    silent[12] = -40.0  # the last level never fires: it is no subthreshold response either
    spikes[12] = False
    blocked = jl.fit_recording(replace(steps, spikes=spikes, voltage=silent))
    assert blocked.curve["current_pA"] == plain.curve["current_pA"][:10]
    note = next(note for note in blocked.warnings if "depolarisation block" in note)
    assert note.endswith("the 3 levels from 340 pA on are left out")
    for name in ("tau_m", "r_m", "v_rest"):
        assert getattr(blocked.params, name) == pytest.approx(getattr(TRUTH, name), rel=1e-3)
    # Counts of 500 ms come in 2 Hz: both curves are off by as much, and so are what they determine.
    assert blocked.params.v_th == pytest.approx(plain.params.v_th, abs=0.5)
    assert blocked.params.v_reset == pytest.approx(plain.params.v_reset, abs=5.0)
    assert not any("rectifies" in note for note in blocked.warnings)


def test_rates_of_no_lif_are_named_and_have_no_intervals(steps, plain):
    """Every second sweep that fires falls silent after a few spikes, and fires again at the next level."""
    spikes = np.array(steps.spikes)
    spikes[7::2, round(150.0 / DT) :] = False
    odd = jl.fit_recording(replace(steps, spikes=spikes))
    assert any("these are no LIF's rates" in note for note in odd.warnings)
    assert set(odd.intervals) == {"tau_m", "r_m", "v_rest"} < set(plain.intervals)


def test_a_trial_that_is_stored_twice_counts_once_and_a_padded_sweep_not_at_all(steps, plain):
    twice = jl.fit_recording(steps.select([*range(len(LEVELS)), 5, 9]))
    assert twice.params == plain.params and twice.intervals == plain.intervals
    assert any("2 of 15 sweeps have the voltage of an earlier one" in note for note in twice.warnings)
    voltage = np.array(steps.voltage)
    voltage[4, 4000:] = 0.0
    with pytest.raises(ValueError, match="from 400 ms to the end in sweep 4 .*stopped early and was padded"):
        jl.fit_recording(replace(steps, voltage=voltage))
