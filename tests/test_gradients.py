"""The audit against losses whose smoothed slope is known, and against gradients that are wrong on purpose."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.networks import Dense, DenseParams, Recurrent, RecurrentParams, Sequential, init_dense, init_recurrent

PARAMS = jl.LIFParams(t_ref=2.0)
NOISE = jl.stimulus.ornstein_uhlenbeck(jax.random.key(0), 170.0, 120.0, 5.0, 300.0, 0.5)
KEY = jax.random.key(1)


def rate(output):
    return 1000.0 * jnp.mean(output.spikes) / 0.5


def mean_voltage(output):
    return jnp.mean(output.v)


@dataclass(frozen=True)
class WrongWay:
    """A surrogate of the wrong sign."""

    def __call__(self, x, /):
        return -jl.SuperSpike()(x)


def test_the_smoothed_slope_of_a_passive_membrane_is_its_derivative():
    """mean v is linear in r_m and v_rest, whose smoothed slope is the slope; tau_m bends by its own 2 % squared."""
    params, current = jl.LeakyParams(tau_m=10.0, r_m=0.1, v_rest=-70.0), jnp.full(100, 200.0)
    audit = jl.audit_gradient(mean_voltage, jl.LeakyIntegrator(dt=0.5), params, current, key=KEY)
    # v = v_rest + r_m I (1 - mean exp(-t/tau)); t ends the steps.
    decay = np.exp(-0.5 * np.arange(1, 101) / 10.0)
    slope = {"r_m": 0.1 * 200.0 * (1 - decay.mean()), "v_rest": 70.0}
    for name, value in slope.items():
        assert float(audit.cell[name]) == pytest.approx(value, rel=1e-9)
        # Four standard errors: one in 16 000.
        assert abs(float(audit.smoothed[name]) - value) < 4.0 * float(audit.error[name])
    assert audit.comparisons["cell"]["all"].cosine > 0.99 and audit.verdict.startswith("trustworthy")
    assert audit.precise is None


def test_its_gradients_are_those_of_autodiff():
    audit = jl.audit_gradient(mean_voltage, jl.LIF(dt=0.5), PARAMS, NOISE, key=KEY, samples=2)
    for label, cell in (("cell", jl.LIF(dt=0.5)), ("precise", jl.PreciseLIF(dt=0.5))):
        plain = jax.grad(lambda p, c=cell: mean_voltage(jl.simulate(c, p, NOISE)[1]))(PARAMS)
        along = jax.grad(lambda x, c=cell: mean_voltage(jl.simulate(c, PARAMS, x)[1]))(NOISE)
        for name in audit.names:
            expected = abs(getattr(PARAMS, name)) * float(getattr(plain, name))
            assert float(getattr(audit, label)[name]) == pytest.approx(expected, rel=1e-9, abs=1e-12)
        np.testing.assert_allclose(audit.over_time[label], along, rtol=1e-9, atol=1e-15)


def test_a_surrogate_of_the_wrong_sign_is_caught():
    right, wrong = (
        jl.audit_gradient(rate, jl.LIF(dt=0.5, surrogate=s), PARAMS, NOISE, key=KEY)
        for s in (jl.SuperSpike(), WrongWay())
    )
    assert right.comparisons["cell"]["all"].cosine > 0.9
    assert wrong.comparisons["cell"]["all"].cosine < -0.9
    assert "lies" in wrong.verdict and "lies" not in right.verdict


def test_the_exact_gradient_of_a_count_is_zero_and_said_to_be():
    audit = jl.audit_gradient(rate, jl.PreciseLIF(dt=0.5), PARAMS, NOISE, key=KEY)
    assert all((g == 0).all() for g in audit.cell.values())
    assert audit.verdict == "the gradient is zero where the smoothed loss has a slope"


def test_a_gradient_that_is_not_finite_is_named():
    def broken(output):
        return jnp.sqrt(jnp.maximum(output.v.max() + 55.0, 0.0))  # infinite slope at the threshold or below it

    audit = jl.audit_gradient(broken, jl.LIF(dt=0.5), PARAMS, NOISE, key=KEY, samples=2)
    assert audit.verdict.startswith("the gradient is not finite in")


def test_too_few_samples_leave_it_undecided():
    audit = jl.audit_gradient(mean_voltage, jl.LIF(dt=0.5), PARAMS, NOISE, key=KEY, samples=2, budget=2)
    assert audit.verdict.startswith("undecided") and audit.agreement.pairs == 2


@pytest.mark.parametrize(("surrogate", "sign"), [(jl.SuperSpike(), 1), (WrongWay(), -1)], ids=["right", "wrong"])
def test_a_recurrent_network_gets_a_verdict_from_few_samples(surrogate, sign):
    """252 weights, whose slope from 32 pairs is noise: along the surrogate's gradient it is not.

    The oracle: central differences along the gradient, of the loss averaged over many shifts of the weights.
    """
    keys = jax.random.split(jax.random.key(0), 4)
    layers = (Dense(), Recurrent(jl.LIF(dt=1.0, surrogate=surrogate)), Dense(), jl.LeakyIntegrator(dt=1.0))
    network, inputs = Sequential(layers), jax.random.normal(keys[3], (60, 6))
    params = (
        init_dense(keys[0], 6, 14, gain=3.0),
        init_recurrent(keys[1], 14, tau_m=10.0),
        init_dense(keys[2], 14, 2, gain=2.0),
        jl.LeakyParams(tau_m=20.0),
    )
    names, noise = ("0.weight", "1.weight"), 0.1

    def loss(output):
        return jnp.mean(output.output.v[:, 0] - output.output.v[:, 1])

    audit = jl.audit_gradient(loss, network, params, inputs, key=KEY, names=names, noise=noise, samples=32)
    assert audit.verdict.startswith("uphill: it lies") if sign < 0 else "downhill" in audit.verdict
    assert audit.agreement.downhill == sign and audit.agreement.pairs <= 4096

    weights = {name: params[int(name[0])].weight for name in names}
    length = np.sqrt(sum(np.sum(g**2) for g in audit.cell.values()))

    def at(key, along):
        moved = {}
        for name, each in zip(names, jax.random.split(key), strict=True):
            shift = noise * jax.random.normal(each, weights[name].shape) + along * audit.cell[name] / length
            moved[name] = weights[name] + audit.scale[name] * shift
        first, second = (replace(params[n], weight=moved[name]) for n, name in enumerate(names))
        return loss(jl.simulate(network, (first, second, *params[2:]), inputs)[1])

    def slope(key):
        return (at(key, 0.1) - at(key, -0.1)) / 0.2

    slopes = np.asarray(jax.jit(jax.vmap(slope))(jax.random.split(jax.random.key(9), 4000)))
    error = np.hypot(audit.agreement.error, slopes.std() / np.sqrt(4000))
    assert sign * slopes.mean() > 4.0 * slopes.std() / np.sqrt(4000), "the oracle itself knows the sign"
    # Four standard errors: one in 16 000.
    assert abs(audit.agreement.slope - slopes.mean()) < 4.0 * error


def test_a_network_is_audited_layer_by_layer():
    rng = np.random.default_rng(0)
    neuron = jl.LIFParams(tau_m=10.0, r_m=1.0, v_rest=0.0, v_th=1.0, v_reset=0.0, t_ref=0.0)
    params = (
        DenseParams(weight=jnp.asarray(rng.normal(0.5, 0.3, (3, 4)))),
        RecurrentParams(neuron=neuron, weight=jnp.asarray(rng.normal(0.0, 0.2, (4, 4)))),
        DenseParams(weight=jnp.asarray(rng.normal(1.0, 0.1, (4, 1)))),
        jl.LeakyParams(tau_m=20.0),
    )
    network = Sequential((Dense(), Recurrent(jl.LIF(dt=1.0)), Dense(), jl.LeakyIntegrator(dt=1.0)))
    inputs = jnp.asarray(rng.uniform(0.0, 2.0, (60, 3)))
    names = ("0.weight", "1.weight", "2.weight")
    audit = jl.audit_gradient(
        lambda out: jnp.mean(out.output.v), network, params, inputs, key=KEY, names=names, noise=0.1, samples=1024
    )
    assert audit.names == names and audit.over_time["cell"].shape == (60,)
    # The readout's weight acts linearly: only its entries' sampling errors turn the slope away from the gradient.
    assert audit.comparisons["cell"]["2.weight"].cosine > 0.9
    assert audit.comparisons["cell"]["0.weight"].cosine > 0.5
    # With one leaf audited in each, a layer is its leaf, and the readout, which has none, is left out.
    layers = {name: c for name, c in audit.comparisons["cell"].items() if name.startswith("layer")}
    assert layers == {f"layer {n}": audit.comparisons["cell"][f"{n}.weight"] for n in range(3)}


def test_a_layer_is_compared_over_all_its_parameters():
    params = (DenseParams(weight=jnp.ones((1, 2)), bias=jnp.ones(2)), jl.LeakyParams(tau_m=jnp.full(2, 10.0)))
    network = Sequential((Dense(), jl.LeakyIntegrator(dt=0.5)))
    audit = jl.audit_gradient(
        lambda out: jnp.mean(out.output.v), network, params, jnp.ones((40, 1)), key=KEY, samples=8
    )
    for n in (0, 1):
        names = [name for name in audit.names if name.startswith(f"{n}.")]
        a, b = (np.concatenate([np.ravel(part[k]) for k in names]) for part in (audit.cell, audit.smoothed))
        layer = audit.comparisons["cell"][f"layer {n}"]
        assert layer.cosine == pytest.approx(np.sum(a * b) / np.sqrt(np.sum(a**2) * np.sum(b**2)))
        assert layer.norm_ratio == pytest.approx(np.sqrt(np.sum(a**2) / np.sum(b**2)))


def test_only_a_network_has_layers_and_only_bins_give_windows():
    audit = jl.audit_gradient(mean_voltage, jl.LIF(dt=0.5), PARAMS, NOISE, key=KEY, samples=2)
    assert set(audit.comparisons["cell"]) == {"all", *audit.names}
    assert audit.windows == {} and audit.edges.size == 0


def test_over_time_a_passive_membrane_has_the_slope_of_central_differences(dtype):
    """Below threshold the loss is linear in the input: all three gradients are one, in windows of uneven length."""
    shape = (100,) if dtype == "float64" else (100, 3)  # one neuron, and three
    current = np.random.default_rng(0).uniform(0.0, 100.0, shape)
    x = jnp.asarray(current, dtype)
    audit = jl.audit_gradient(mean_voltage, jl.LIF(dt=0.5), PARAMS, x, key=KEY, bins=7, names=("r_m",), samples=2048)
    assert audit.edges.tolist() == [0, 14, 28, 42, 57, 71, 85, 100]
    for w in range(7):
        shift = np.zeros(shape)
        shift[audit.edges[w] : audit.edges[w + 1]] = 10.0
        # In double precision throughout: the oracle.
        with jax.enable_x64(True):
            up, down = (mean_voltage(jl.simulate(jl.LIF(dt=0.5), PARAMS, current + s * shift)[1]) for s in (1, -1))
        expected = float(up - down) / 20.0
        for label in ("cell", "precise"):
            # Sums of a hundred numbers: some ten roundings.
            rounding = 1e-9 if dtype == "float64" else 1e-5
            assert audit.windows[label][w] == pytest.approx(expected, rel=rounding)
        # Four standard errors: one in 16 000.
        assert abs(audit.windows["smoothed"][w] - expected) < 4.0 * audit.windows["error"][w]
    for label in ("cell", "precise"):
        over_time = audit.comparisons[label]["over time"]
        # Each window's error is that of a mean of 2048, sqrt(7 / 2048) = 6 % of the typical slope.
        assert over_time.cosine > 0.97 and over_time.norm_ratio == pytest.approx(1.0, abs=0.2)


def test_bins_leave_the_slopes_of_the_parameters_alone():
    with_bins, without = (
        jl.audit_gradient(rate, jl.LIF(dt=0.5), PARAMS, NOISE, key=KEY, samples=4, bins=bins) for bins in (5, 0)
    )
    assert with_bins.smoothed == without.smoothed and with_bins.verdict == without.verdict


def test_over_time_a_surrogate_of_the_wrong_sign_is_caught():
    cosines = [
        jl.audit_gradient(rate, jl.LIF(dt=0.5, surrogate=s), PARAMS, NOISE, key=KEY, bins=4, noise=0.1, samples=1024)
        .comparisons["cell"]["over time"]
        .cosine
        for s in (jl.SuperSpike(), WrongWay())
    ]
    assert cosines[0] > 0.7 and cosines[1] < -0.7


def test_no_precise_counterpart_where_two_spikes_fit_into_a_step():
    audit = jl.audit_gradient(
        mean_voltage, jl.LIF(dt=0.5), jl.LIFParams(t_ref=0.2), NOISE, key=KEY, samples=2, names=("tau_m",)
    )
    assert audit.precise is None and audit.names == ("tau_m",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"names": ("tau",)}, "'tau'"),
        ({"noise": 0.0}, "noise"),
        ({"samples": 1}, "samples"),
        ({"samples": 8, "budget": 7}, "budget = 7: budget must be samples = 8 or more"),
        ({"bins": -1}, "bins = -1"),
        ({"bins": 601}, "no more than the 600 steps"),
    ],
)
def test_bad_requests_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        jl.audit_gradient(rate, jl.LIF(dt=0.5), PARAMS, NOISE, key=KEY, **change)
    with pytest.raises(ValueError, match="^the loss returned .* of shape .*: it must be a real scalar"):
        jl.audit_gradient(lambda output: output.v, jl.LIF(dt=0.5), PARAMS, NOISE, key=KEY)


def test_bins_are_refused_for_inputs_of_several_arrays():
    cell = jl.Synaptic(jl.LIF(dt=0.5), jl.VoltageJump())
    params = jl.SynapticParams(neuron=PARAMS, synapse=None)
    with pytest.raises(ValueError, match="bins = 2 with inputs of 2 arrays"):
        jl.audit_gradient(rate, cell, params, jl.Drive(jnp.zeros(9), jnp.zeros(9)), key=KEY, bins=2)
