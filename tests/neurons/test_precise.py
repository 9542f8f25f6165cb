"""PreciseLIF against NEST's precise model, closed forms and central differences."""

import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.networks import Sequential
from jaxlif.neurons.precise import PreciseOutput

DATA = Path(__file__).parent.parent / "data"
NAMES = [field.name for field in fields(jl.LIFParams)]


def times(output, dt):
    steps = np.flatnonzero(output.spikes)
    return steps * dt + np.asarray(output.spike_time)[steps]


@pytest.mark.parametrize(
    "name", ["const_RI12_VR-65_tref2", "const_RI16_VR-65_tref2", "const_RI30_VR-70_tref5", "steps"]
)
def test_spike_times_and_voltages_equal_those_of_nest(name):
    stored = np.load(DATA / f"nest_iaf_psc_exp_ps__{name}.npz", allow_pickle=False)
    meta = json.loads(str(stored["meta"]))
    p = meta["params"]
    params = jl.LIFParams(
        tau_m=p["tau_m"],
        r_m=p["tau_m"] / p["C_m"],
        v_rest=p["E_L"],
        v_th=p["V_th"],
        v_reset=p["V_reset"],
        t_ref=p["t_ref"],
    )
    _, output = jl.simulate(jl.PreciseLIF(dt=meta["dt"]), params, jnp.asarray(stored["current"], float))
    # Both solve the same exponentials: 1e-9 is a thousand roundings.
    np.testing.assert_allclose(times(output, meta["dt"]), stored["spikes"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(output.v, stored["v"][1:], rtol=0, atol=1e-9)


@pytest.mark.parametrize("current", [151.0, 160.0, 300.0, 900.0])
def test_the_rate_under_constant_current_is_the_closed_form_at_1_ms(current):
    params = jl.LIFParams(t_ref=2.0)
    _, output = jl.simulate(jl.PreciseLIF(dt=1.0), params, jnp.full(1000, current))
    expected = float(jl.theory.firing_rate(params, current))
    # t_n - t_1 is known to some 1e-13 of a second.
    assert float(jl.interval_rate(output, 1.0)) == pytest.approx(expected, rel=1e-11)


def test_a_current_held_over_1_ms_gives_the_same_spikes_at_any_dt():
    current = jl.stimulus.ornstein_uhlenbeck(jax.random.key(0), 170.0, 120.0, 5.0, 1000.0, 1.0)
    params = jl.LIFParams(t_ref=3.3)
    _, coarse = jl.simulate(jl.PreciseLIF(dt=1.0), params, current)
    _, fine = jl.simulate(jl.PreciseLIF(dt=0.1), params, jnp.repeat(current, 10))
    assert len(times(coarse, 1.0)) > 20
    np.testing.assert_allclose(times(coarse, 1.0), times(fine, 0.1), rtol=0, atol=1e-9)


def test_the_grid_neuron_converges_to_it():
    """An independent neuron: the grid LIF is late by up to a step, and by less the smaller the step."""
    current = jl.stimulus.ornstein_uhlenbeck(jax.random.key(1), 180.0, 60.0, 20.0, 500.0, 1.0)
    params = jl.LIFParams(t_ref=2.0)
    _, precise = jl.simulate(jl.PreciseLIF(dt=1.0), params, current)
    _, grid = jl.simulate(jl.LIF(dt=0.001), params, jnp.repeat(current, 1000))
    late = jl.spiketrains.spike_times(np.asarray(grid.spikes), 0.001) - times(precise, 1.0)
    # Every spike adds up to one step of lateness, and a weakly driven threshold magnifies what came before.
    assert np.abs(late).max() < 0.1 and late[0] >= 0


SETS = 20
DT, STEPS = 1.0, 2000
CURRENT = np.asarray(jl.stimulus.ornstein_uhlenbeck(jax.random.key(5), 120.0, 80.0, 10.0, STEPS * DT, DT))


def random_sets():
    rng = np.random.default_rng(3)
    low = {"tau_m": 8.0, "r_m": 0.095, "v_rest": -70.5, "v_th": -55.5, "v_reset": -68.0, "t_ref": 1.5}
    high = {"tau_m": 12.0, "r_m": 0.105, "v_rest": -69.5, "v_th": -54.5, "v_reset": -62.0, "t_ref": 6.0}
    return jl.LIFParams(**{name: jnp.asarray(rng.uniform(low[name], high[name], SETS)) for name in NAMES})


def observables(params, current):
    """Return the mean voltage and the time of the fifteenth spike."""
    _, output = jl.simulate(jl.PreciseLIF(dt=DT), params, current)
    return jnp.stack([jnp.mean(output.v), jl.nth_spike_time(output, 14, DT)])


def test_the_sets_fire_between_20_and_60_spikes():
    _, output = jax.vmap(lambda p: jl.simulate(jl.PreciseLIF(dt=DT), p, CURRENT))(random_sets())
    counts = np.asarray(output.spikes.sum(axis=1))
    assert counts.min() >= 20 and counts.max() <= 60


def test_gradients_equal_central_differences():
    """In all 20 sets, for each parameter and for a random direction of the current: seven directions in one program."""
    direction = np.random.default_rng(4).normal(size=STEPS)

    def along(params, x):
        moved = {name: getattr(params, name) + x[i] for i, name in enumerate(NAMES)}
        return observables(jl.LIFParams(**moved), CURRENT + x[-1] * direction)

    # Where a spike hardly crosses the threshold its time bends so sharply that only a small step is inside the bend;
    # elsewhere a small step is rounding. So four steps are tried, a decade apart, and the best of them counts: none
    # comes within a millionth by chance. Rounding of a time of 1e3 ms, over a step of 1e-4, leaves some 1e-9: a
    # derivative that a long interval has made smaller than a hundredth of the typical one is compared with that.
    params, still = random_sets(), np.zeros(len(NAMES) + 1)
    exact = jax.jit(jax.vmap(lambda p: jax.jacfwd(lambda x: along(p, x))(still)))(
        params
    )  # [set, observable, direction]
    reverse = jax.jit(jax.vmap(lambda p: jax.jacrev(lambda x: along(p, x))(still)))(params)
    np.testing.assert_allclose(reverse, exact, rtol=1e-9, atol=1e-12)
    scale = np.array([2e-5 * abs(float(np.mean(getattr(params, name)))) for name in NAMES] + [1e-3])
    at = jax.jit(jax.vmap(lambda x: jax.vmap(lambda p: along(p, x))(params)))
    errors, typical = [], np.median(np.abs(exact), axis=0)
    for h in scale * 10.0 ** -np.arange(4.0)[:, None]:
        # To fourth order.
        one, two = ((at(k * np.diag(h)) - at(-k * np.diag(h))) / (12.0 * h[:, None, None]) for k in (1.0, 2.0))
        numeric = np.moveaxis(np.asarray(8.0 * one - two), 0, -1)
        errors.append(np.abs(numeric - exact) / np.maximum(np.abs(exact), 1e-2 * typical))
    assert np.min(errors, axis=0).max() <= 1e-6 and (typical > 0).all()


def test_a_refractory_period_below_the_step_is_refused():
    with pytest.raises(ValueError, match=r"t_ref = 0\.5 ms: t_ref must be dt = 1 ms or more"):
        jl.simulate(jl.PreciseLIF(dt=1.0), jl.LIFParams(t_ref=0.5), jnp.zeros(3))


CORNERS = {
    "never fires": (jl.LIFParams(), 100.0),
    "v_inf equals v_th": (jl.LIFParams(v_rest=-70.0, v_th=-50.0, r_m=0.125), 160.0),
    "grazes": (jl.LIFParams(v_rest=-70.0, v_th=-50.0, r_m=0.125, t_ref=1.0), 160.0 + 1e-9),
    "refractory for many steps": (jl.LIFParams(t_ref=37.0), 400.0),
    "refractory for exactly a step": (jl.LIFParams(t_ref=1.0), 400.0),
    "rests above threshold": (jl.LIFParams(v_rest=-50.0), 0.0),
    "starts on threshold": (jl.LIFParams(v_rest=-55.0 + 1e-4, v_th=-55.0), 0.0),
}


@pytest.mark.parametrize(("params", "current"), CORNERS.values(), ids=CORNERS)
@pytest.mark.parametrize("surrogate", [None, jl.SuperSpike()], ids=["exact", "surrogate"])
def test_corners_have_finite_values_and_gradients(params, current, surrogate, dtype):
    def total(params, current):
        _, output = jl.simulate(jl.PreciseLIF(dt=1.0, surrogate=surrogate), params, current)
        return jnp.mean(output.v) + jnp.sum(output.spike_time) + jnp.mean(output.spikes) + jl.interval_rate(output, 1.0)

    params = jl.LIFParams(**{name: jnp.asarray(value, dtype) for name, value in asdict(params).items()})
    value, grads = jax.value_and_grad(total, argnums=(0, 1))(params, jnp.full(60, current, dtype))
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_a_neuron_that_rests_above_threshold_fires_at_the_end_of_every_refractory_period():
    params = jl.LIFParams(v_rest=-50.0, v_th=-55.0, v_reset=-65.0, t_ref=2.0)
    _, output = jl.simulate(jl.PreciseLIF(dt=1.0), params, jnp.zeros(100))
    period = 2.0 + 10.0 * np.log(15.0 / 5.0)  # t_ref + tau ln((v_inf - v_reset)/(v_inf - v_th))
    np.testing.assert_allclose(times(output, 1.0), np.arange(0.0, 100.0, period), rtol=0, atol=1e-10)


def test_the_surrogate_gives_counts_a_direction_and_leaves_the_rest_alone():
    params, current = jl.LIFParams(), jnp.full(100, 149.0)  # a little below rheobase, 150 pA

    def count(params, cell):
        return jl.simulate(cell, params, current)[1].spikes.sum()

    plain, soft = jl.PreciseLIF(dt=1.0), jl.PreciseLIF(dt=1.0, surrogate=jl.SuperSpike())
    assert float(count(params, soft)) == 0.0
    assert float(jax.grad(count)(params, plain).v_th) == 0.0
    assert float(jax.grad(count)(params, soft).v_th) < 0.0  # a lower threshold would make it fire

    def mean_voltage(params, cell):
        return jl.simulate(cell, params, jnp.full(100, 300.0))[1].v.mean()

    assert jax.grad(mean_voltage)(params, plain) == jax.grad(mean_voltage)(params, soft)


def test_the_gradient_of_the_interval_rate_is_that_of_the_closed_form():
    params, current = jl.LIFParams(t_ref=2.0), jnp.full(400, 250.0)

    def simulated(params):
        return jl.interval_rate(jl.simulate(jl.PreciseLIF(dt=1.0), params, current)[1], 1.0)

    found, expected = jax.grad(simulated)(params), jax.grad(lambda p: jl.theory.firing_rate(p, 250.0))(params)
    for name in NAMES:
        assert float(getattr(found, name)) == pytest.approx(float(getattr(expected, name)), rel=1e-9), name


def test_no_rate_and_no_time_without_spikes():
    quiet = PreciseOutput(jnp.zeros((4, 2)), jnp.zeros((4, 2)), jnp.zeros((4, 2)))
    assert jl.interval_rate(quiet, 1.0).tolist() == [0.0, 0.0]
    assert np.isinf(jl.nth_spike_time(quiet, 0, 1.0)).all()


def test_a_batch_is_refused():
    batch = jl.simulate(jl.PreciseLIF(dt=0.5), jl.LIFParams(), jnp.zeros((4, 3, 2)))[1]
    for call in (lambda: jl.nth_spike_time(batch, 0, 0.5), lambda: jl.interval_rate(batch, 0.5)):
        with pytest.raises(
            ValueError, match=r"^spikes has shape \(4, 3, 2\): it must be \[T\] or \[T, N\]; a batch goes"
        ):
            call()


def test_other_units_change_nothing_and_scale_the_times():
    """Powers of two, so that every number is scaled exactly: mV by 4, ms by 2."""
    params, current = jl.LIFParams(t_ref=2.0), jnp.asarray(CURRENT[:300]) + 60.0
    volts = {name: 4.0 * getattr(params, name) for name in ("v_rest", "v_th", "v_reset", "r_m")}
    scaled = replace(params, **volts, tau_m=2.0 * params.tau_m, t_ref=2.0 * params.t_ref)
    _, one = jl.simulate(jl.PreciseLIF(dt=1.0), params, current)
    _, other = jl.simulate(jl.PreciseLIF(dt=2.0), scaled, current)
    assert one.spikes.sum() > 3
    np.testing.assert_array_equal(other.spikes, one.spikes)
    np.testing.assert_array_equal(other.v, 4.0 * one.v)
    np.testing.assert_array_equal(other.spike_time, 2.0 * one.spike_time)


def test_it_runs_inside_jit_and_is_checked_inside_a_network():
    voltage = jax.jit(lambda x: jl.simulate(jl.PreciseLIF(dt=0.5), jl.LIFParams(t_ref=2.0), x)[1].v)(jnp.ones(10))
    assert np.isfinite(voltage).all()
    network = Sequential((jl.PreciseLIF(dt=1.0),))
    with pytest.raises(ValueError, match="t_ref must be dt = 1 ms or more"):
        jl.simulate(network, (jl.LIFParams(t_ref=0.0),), jnp.ones(3))


def test_a_fit_to_a_spike_time_finds_the_parameter():
    truth, current = jl.LIFParams(tau_m=10.0, t_ref=2.0), jnp.asarray(CURRENT[:300]) + 60.0

    def third(params):
        return jl.nth_spike_time(jl.simulate(jl.PreciseLIF(dt=1.0), params, current)[1], 2, 1.0)

    target = third(truth)
    start = replace(truth, tau_m=10.5)
    result = jl.fit(
        lambda p: (third(p) - target) ** 2, start, {"tau_m": (5.0, 20.0)}, optimizer=jl.lbfgs(), num_steps=30
    )
    assert float(result.params.tau_m) == pytest.approx(10.0, rel=1e-6)
