"""The resonant neuron, against SciPy's matrix exponential and its derivative, a plain loop and the plain neuron."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm, expm_frechet

import jaxlif as jl
from jaxlif.interop import to_nest
from jaxlif.neurons.resonant import propagator

DT = 0.5
PARAMS = jl.ResonantLIFParams(tau_m=12.0, r_m=0.1, v_reset=-65.0, t_ref=2.0, a=40.0, tau_w=30.0, b=60.0)
CURRENT = np.random.default_rng(5).normal(600.0, 700.0, 1500)


def critical(tau_m, tau_w, r_m=0.1):
    """Return the a at which the two eigenvalues meet."""
    return (tau_w - tau_m) ** 2 / (4.0 * tau_m * tau_w * r_m)


#: tau_m, tau_w, a: decays, equal decays, oscillations slow and fast, both sides of where the formulas change over.
REGIMES = {
    "uncoupled": (10.0, 50.0, 0.0),
    "decays": (10.0, 500.0, 1.0),
    "negative a": (10.0, 50.0, -9.0),
    "equal time constants": (20.0, 20.0, 0.0),
    "critical": (10.0, 40.0, critical(10.0, 40.0)),
    "just below": (2.0, 40.0, critical(2.0, 40.0) * (1.0 - 1e-9)),
    "just above": (2.0, 40.0, critical(2.0, 40.0) * (1.0 + 1e-9)),
    "oscillates": (10.0, 100.0, 300.0),
    "several turns in a step": (0.05, 0.4, 5000.0),
    "far shorter than a step": (1e-3, 0.02, 10.0),
    "far longer than a step": (1e4, 3e4, 10.0),
}
regimes = pytest.mark.parametrize("tau_m, tau_w, a", REGIMES.values(), ids=REGIMES)


def neuron(tau_m, tau_w, a):
    return jl.ResonantLIFParams(tau_m=tau_m, tau_w=tau_w, a=a)


def matrix(p):
    """The linear system's matrix for (v, w), 1/ms."""
    return np.array([[-1.0 / p.tau_m, -p.r_m / p.tau_m], [p.a / p.tau_w, -1.0 / p.tau_w]])


def as_matrix(p):
    return np.array([[p.vv, p.vw], [p.wv, p.ww]])


@regimes
def test_the_propagator_is_the_matrix_exponential(tau_m, tau_w, a, dtype):
    """Entries that differ in unit and size, so each row and column to its own: within some roundings of its largest."""
    params = neuron(*(jnp.asarray(x, dtype) for x in (tau_m, tau_w, a)))
    found = as_matrix(propagator(params, DT))
    assert found.dtype == dtype
    scale = np.array([[1.0, params.r_m], [abs(a) + 1e-3, 1.0]])  # of w in a unit of the voltage
    wanted = expm(DT * matrix(neuron(tau_m, tau_w, a))) - np.eye(2)
    # float32 rounds the parameters too, of which the fastest oscillation makes some 30 rad.
    tolerance = {"float64": 1e-12, "float32": 2e-5 if tau_m == 0.05 else 2e-6}[dtype]
    np.testing.assert_allclose(found / scale, wanted / scale, rtol=0, atol=tolerance)


@regimes
@pytest.mark.parametrize("name", ["tau_m", "tau_w", "a", "r_m"])
def test_its_derivative_is_that_of_the_matrix_exponential(name, tau_m, tau_w, a):
    """Fréchet derivatives by SciPy; where the eigenvalues meet a square root's would be infinite."""
    params = neuron(tau_m, tau_w, a)

    def entries(x):
        return jnp.stack(propagator(replace(params, **{name: x}), DT))

    value = getattr(params, name)
    found = np.asarray(jax.jacobian(entries)(value)).reshape(2, 2)
    direction = np.asarray(jax.jacobian(lambda x: jnp.stack(jax.tree.leaves(traced(params, name, x))))(value))
    _, wanted = expm_frechet(DT * matrix(params), DT * direction.reshape(2, 2))
    # Some roundings of the larger of both; where all has decayed within the step next to nothing is left of the change.
    np.testing.assert_allclose(
        found, wanted, rtol=0, atol=1e-12 * max(np.abs(DT * direction).max(), np.abs(wanted).max())
    )


def traced(params, name, x):
    """The matrix's entries with one parameter traced."""
    p = replace(params, **{name: x})
    return -1.0 / p.tau_m, -p.r_m / p.tau_m, p.a / p.tau_w, -1.0 / p.tau_w


def loop(p, current, dt):
    """Step the neuron in plain Python with SciPy's matrix exponential; return spikes and voltages."""
    forwards, alone = expm(dt * matrix(p)), math.exp(-dt / p.tau_w)
    v, w, left = p.v_rest, 0.0, 0
    spikes, voltages = [], []
    for i in current:
        rest = np.linalg.solve(matrix(p), -np.array([(p.v_rest + p.r_m * i) / p.tau_m, -p.a * p.v_rest / p.tau_w]))
        if left:
            target = p.a * (v - p.v_rest)
            w = target + (w - target) * alone
        else:
            v, w = rest + forwards @ (np.array([v, w]) - rest)
        spiked = left == 0 and v >= p.v_th
        left = math.ceil(p.t_ref / dt - 1e-9) if spiked else max(left - 1, 0)
        v, w = (p.v_reset if spiked else v), w + p.b * spiked
        spikes.append(spiked), voltages.append(v)
    return np.array(spikes), np.array(voltages)


def test_it_is_its_equations():
    """A plain loop in double precision; 1500 steps of rounding stay below 1e-9 mV."""
    spikes, voltages = loop(PARAMS, CURRENT, DT)
    assert 20 < spikes.sum() < 300
    _, output = jl.simulate(jl.ResonantLIF(dt=DT), PARAMS, CURRENT)
    np.testing.assert_array_equal(output.spikes, spikes)
    np.testing.assert_allclose(output.v, voltages, rtol=0, atol=1e-9)


def test_the_step_does_not_matter_below_threshold():
    """One step of 8 ms is eighty of 0.1 ms: 1e-10 mV is some hundred roundings of 70 mV."""
    params = replace(PARAMS, v_th=1e6, tau_m=2.0, a=200.0)
    coarse = jl.simulate(jl.ResonantLIF(dt=8.0), params, CURRENT[:20])[1].v
    fine = jl.simulate(jl.ResonantLIF(dt=0.1), params, np.repeat(CURRENT[:20], 80))[1].v[79::80]
    np.testing.assert_allclose(coarse, fine, rtol=0, atol=1e-10)


def test_without_adaptation_it_is_the_plain_neuron():
    """The same spikes; the voltages are rounded in another order."""
    plain = jl.LIFParams(t_ref=2.0)
    _, a = jl.simulate(jl.LIF(dt=DT), plain, CURRENT)
    _, b = jl.simulate(jl.ResonantLIF(dt=DT), jl.ResonantLIFParams(**vars(plain), a=0.0), CURRENT)
    assert a.spikes.sum() > 20
    np.testing.assert_array_equal(a.spikes, b.spikes)
    np.testing.assert_allclose(a.v, b.v, rtol=0, atol=1e-11)


def test_the_adaptive_neuron_approaches_it_as_the_step_shrinks():
    """It holds w over a step: an error of first order, a tenth with a tenth of the step."""
    adaptive = jl.AdaptiveLIFParams(tau_m=12.0, v_th=1e3, a=(40.0,), tau_a=(30.0,))
    coupled = jl.ResonantLIFParams(tau_m=12.0, v_th=1e3, a=40.0, tau_w=30.0)

    def error(dt):
        current = np.full(round(40.0 / dt), 500.0)
        a = jl.simulate(jl.AdaptiveLIF(dt=dt), adaptive, current)[1].v
        return float(np.abs(a - jl.simulate(jl.ResonantLIF(dt=dt), coupled, current)[1].v).max())

    assert error(0.1) > 0.01
    assert error(0.01) == pytest.approx(0.1 * error(0.1), rel=0.1)


def test_normalising_changes_no_spike():
    """The same model in other units; a spike that hung on a rounding would show."""
    _, output = jl.simulate(jl.ResonantLIF(dt=DT), PARAMS, CURRENT)
    scaled = PARAMS.r_m * CURRENT / (PARAMS.v_th - PARAMS.v_rest)
    _, normal = jl.simulate(jl.ResonantLIF(dt=DT), PARAMS.normalised(), scaled)
    np.testing.assert_array_equal(output.spikes, normal.spikes)


def test_preparing_twice_is_preparing_once():
    cell = jl.ResonantLIF(dt=DT)
    once = cell.prepare(PARAMS)
    assert cell.prepare(once) is once
    state = cell.init_state(PARAMS, CURRENT[0])
    np.testing.assert_array_equal(cell.step(PARAMS, state, CURRENT[0])[1].v, cell.step(once, state, CURRENT[0])[1].v)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tau_w": 0.0}, "tau_w = 0 ms: tau_w must be greater than 0 ms"),
        ({"a": -10.0}, "a = -10 nS: a must be more than -1 / r_m"),
        ({"a": np.array([1.0, np.nan])}, r"a\[1\] = nan nS: a must be finite"),
        ({"b": np.inf}, "b = inf pA: b must be finite"),
    ],
)
def test_bad_values_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        jl.simulate(jl.ResonantLIF(dt=DT), replace(PARAMS, **change), CURRENT[:3])


def test_an_export_that_knows_no_coupled_adaptation_refuses_it():
    with pytest.raises(ValueError, match="params is a ResonantLIFParams"):
        to_nest(PARAMS)
