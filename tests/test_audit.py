"""The audit against losses whose smoothed slope is known, and against gradients that are wrong on purpose."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.audit import agreement, smoothed_slopes
from jaxlif.networks import (
    Delayed,
    DelayParams,
    Dense,
    Population,
    Recurrent,
    Sequential,
    Sparse,
    SparseParams,
    build,
    init_dense,
    init_recurrent,
    poisson_drive,
)

PARAMS = jl.LIFParams(t_ref=2.0)
NOISE = jl.stimulus.ornstein_uhlenbeck(jax.random.key(0), 170.0, 120.0, 5.0, 300.0, 0.5)
KEY = jax.random.key(1)
SMALL = 0.1  # noise of the losses below
RNG = np.random.default_rng(1)
D = 400
SLOPE = RNG.normal(size=D)
ORIGIN = jnp.zeros(D)


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
    assert audit.cosines["cell"] > 0.99 and audit.verdict.startswith("trustworthy")
    assert audit.precise is None


def test_a_network_of_populations_is_audited_from_its_state():
    """Below threshold the voltage after a while is linear in a weight, here of spikes that arrive by a drive."""
    cell = jl.Synaptic(jl.LIF(dt=0.5), jl.VoltageJump())
    population = Population(size=5, cell=cell, params=jl.SynapticParams(neuron=jl.LIFParams(tau_m=10.0)), v=-60.0)
    drive = poisson_drive("n", rate=400.0, weight=0.05)
    network = build(KEY, {"n": population}, (), [drive])
    options = {"key": KEY, "names": ("drives.*.weight", "neurons.n.neuron.v_rest"), "samples": 16}
    audit = jl.audit_gradient(
        lambda o: jnp.mean(o.v["n"][-1]), network.cell, network.params, jnp.zeros(20), state=network.state, **options
    )
    start = float(jl.simulate(network.cell, network.params, jnp.zeros(20), network.state)[1].v["n"][-1].mean())
    left = np.exp(-1.0)  # of the start, 10 ms later; without it v_rest would have the slope 1
    weight, v_rest = (float(audit.cell[name]) for name in ("drives.n:jump.weight", "neurons.n.neuron.v_rest"))
    assert v_rest == pytest.approx(70.0 * (1.0 - left), rel=1e-9)
    assert weight == pytest.approx(start + 70.0 - 10.0 * left, rel=1e-9) and weight > 0.0
    assert audit.verdict.startswith("trustworthy")


def test_its_gradients_are_those_of_autodiff():
    audit = jl.audit_gradient(mean_voltage, jl.LIF(dt=0.5), PARAMS, NOISE, key=KEY, samples=2)
    for label, cell in (("cell", jl.LIF(dt=0.5)), ("precise", jl.PreciseLIF(dt=0.5))):
        plain = jax.grad(lambda p, c=cell: mean_voltage(jl.simulate(c, p, NOISE)[1]))(PARAMS)
        for name in audit.names:
            expected = abs(getattr(PARAMS, name)) * float(getattr(plain, name))
            assert float(getattr(audit, label)[name]) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_surrogate_of_the_wrong_sign_is_caught():
    right, wrong = (
        jl.audit_gradient(rate, jl.LIF(dt=0.5, surrogate=s), PARAMS, NOISE, key=KEY)
        for s in (jl.SuperSpike(), WrongWay())
    )
    assert right.cosines["cell"] > 0.9
    assert wrong.cosines["cell"] < -0.9
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


def test_gradients_by_other_rules_stand_beside_it():
    other = jl.LIF(dt=0.5, surrogate=jl.Arctan())

    def arctan(params):
        return rate(jl.simulate(other, params, NOISE)[1])

    options = {"key": KEY, "samples": 2, "names": ("tau_m", "v_th")}
    audit = jl.audit_gradient(rate, jl.LIF(dt=0.5), PARAMS, NOISE, **options, others={"arctan": arctan})
    plain = jax.grad(arctan)(PARAMS)
    for name in audit.names:
        expected = abs(getattr(PARAMS, name)) * float(getattr(plain, name))
        assert float(audit.others["arctan"][name]) == pytest.approx(expected, rel=1e-9)
        assert audit.others["arctan"][name] != audit.cell[name]
    assert set(audit.cosines) == {"cell", "precise", "arctan"}
    for others, words in (
        ({"half": lambda p: 0.5 * arctan(p)}, "'half'.* both must be one loss"),
        ({"cell": arctan}, "'cell'"),
    ):
        with pytest.raises(ValueError, match=words):
            jl.audit_gradient(rate, jl.LIF(dt=0.5), PARAMS, NOISE, **options, others=others)


def test_too_few_samples_leave_it_undecided():
    audit = jl.audit_gradient(mean_voltage, jl.LIF(dt=0.5), PARAMS, NOISE, key=KEY, samples=2)
    assert audit.verdict.startswith("undecided") and audit.agreement.pairs == 2


def test_a_loss_that_noise_makes_no_number_is_said():
    params = jl.LeakyParams(tau_m=10.0, r_m=0.1, v_rest=-70.0)
    audit = jl.audit_gradient(
        lambda out: jnp.log(jnp.mean(out.v) + 70.1),
        jl.LeakyIntegrator(dt=0.5),
        params,
        jnp.zeros(100),
        key=KEY,
        samples=8,
    )
    assert audit.verdict.startswith("undecided: the loss is not finite where the noise moves parameters")


@pytest.mark.parametrize(("surrogate", "sign"), [(jl.SuperSpike(), 1), (WrongWay(), -1)], ids=["right", "wrong"])
def test_a_recurrent_network_gets_a_verdict(surrogate, sign):
    """252 weights, whose slope from 1024 pairs is noise: along the surrogate's gradient it is not.

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

    audit = jl.audit_gradient(loss, network, params, inputs, key=KEY, names=names, noise=noise, samples=1024)
    assert audit.verdict.startswith("uphill: it lies") if sign < 0 else "downhill" in audit.verdict
    assert audit.agreement.downhill == sign

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


def test_delays_and_sparse_weights_are_audited():
    """Passive, with a smooth input: the loss is smooth in every weight and delay, the gradient its slope."""
    rng = np.random.default_rng(0)
    layers = (Dense(), Delayed(1.0, 8.0), Sparse(4), jl.LeakyIntegrator(dt=1.0))
    params = (
        init_dense(jax.random.key(0), 6, 4),
        DelayParams(delay=jnp.asarray(rng.uniform(0.1, 7.0, 4))),
        SparseParams(weight=jnp.asarray(rng.normal(0.0, 0.5, (4, 2))), target=jnp.asarray(rng.integers(0, 4, (4, 2)))),
        jl.LeakyParams(tau_m=5.0),
    )
    inputs = np.sin(0.2 * np.arange(60.0)[:, None] + np.arange(6.0)) ** 2
    names = ("0.weight", "1.delay", "2.weight", "3.tau_m")
    audit = jl.audit_gradient(
        lambda output: jnp.mean(output.output.v**2), Sequential(layers), params, inputs, key=KEY, names=names,
        samples=8192,
    )  # fmt: skip
    assert audit.verdict.startswith("trustworthy") and audit.names == names
    for name in names:
        # Five standard errors of the smoothed slope, and a per cent for what the smoothing itself changes.
        size, error = (np.linalg.norm(x[name]) for x in (audit.smoothed, audit.error))
        assert size > 1e-3 and error < 0.5 * size, "the comparison says something"
        assert np.linalg.norm(audit.cell[name] - audit.smoothed[name]) < 5.0 * error + 0.01 * size, name


def test_a_neuron_with_synapses_has_a_precise_counterpart():
    """Below threshold both are the same passive membrane, also in what arrives when."""
    cell = jl.Synaptic(jl.LIF(dt=0.5), jl.ExponentialCurrent())
    params = jl.SynapticParams(neuron=PARAMS, synapse=jl.CurrentParams(tau_syn=3.0))
    x = jl.Drive(jnp.zeros((40, 1)).at[3].set(50.0), jnp.full(40, 20.0))
    names = ("neuron.tau_m", "synapse.tau_syn")
    audit = jl.audit_gradient(mean_voltage, cell, params, x, key=KEY, samples=2, names=names)
    for name in names:
        assert float(audit.precise[name]) == pytest.approx(float(audit.cell[name]), rel=1e-9)
        assert audit.cell[name] != 0.0


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
    ],
)
def test_bad_requests_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        jl.audit_gradient(rate, jl.LIF(dt=0.5), PARAMS, NOISE, key=KEY, **change)
    with pytest.raises(ValueError, match="^the loss returned .* of shape .*: it must be a real scalar"):
        jl.audit_gradient(lambda output: output.v, jl.LIF(dt=0.5), PARAMS, NOISE, key=KEY)


# ------------------------------------------------------------------------ slopes without derivatives, by closed forms


def linear(x):
    return jnp.dot(SLOPE, x)


def at_angle(cosine):
    """Return a gradient with this cosine to SLOPE, of another length."""
    other = RNG.normal(size=D)
    other -= other @ SLOPE / (SLOPE @ SLOPE) * SLOPE
    unit, across = (x / np.linalg.norm(x) for x in (SLOPE, other))
    return 7.0 * (cosine * unit + np.sqrt(1.0 - cosine**2) * across)


def test_the_slopes_are_those_of_single_pairs(dtype):
    """The oracle: every pair by itself, in a plain loop."""
    slope = jnp.asarray(SLOPE, dtype)
    origin = jnp.asarray(0.5 * SLOPE, dtype)
    directions, slopes = smoothed_slopes(lambda x: jnp.dot(slope, x) + jnp.sum(x**3), origin, KEY, SMALL, 50)
    for key, direction, found in zip(jax.random.split(KEY, 50), directions, slopes, strict=True):
        e = np.asarray(jax.random.normal(key, (D,), dtype), float)
        np.testing.assert_array_equal(direction, e)
        up, down = (SLOPE @ x + np.sum(x**3) for x in (0.5 * SLOPE + SMALL * e, 0.5 * SLOPE - SMALL * e))
        # Sums of 400 numbers; in single precision the difference of two losses over 0.2.
        assert found == pytest.approx((up - down) / (2.0 * SMALL), abs=1e-10 if dtype == "float64" else 5e-3)


@pytest.mark.parametrize("cosine", [1.0, -1.0])
def test_a_slope_along_the_gradient_is_found_exactly(cosine):
    """Of a linear loss regression leaves nothing, with eight pairs for 400 numbers: but for rounding."""
    found = agreement(cosine * SLOPE, *smoothed_slopes(linear, ORIGIN, KEY, SMALL, 8))
    assert found.slope == pytest.approx(cosine * np.linalg.norm(SLOPE), rel=1e-9)
    assert found.cosine == pytest.approx(cosine, abs=1e-9) and found.doubt < 1e-9 and found.downhill == cosine


def audits(cosine, pairs):
    """Return 200 agreements with a linear loss that has jumps as large as its slope."""
    gradient, length = at_angle(cosine), np.linalg.norm(SLOPE)
    draws = (RNG.normal(size=(pairs, D)) for _ in range(200))
    return [agreement(gradient, x, x @ SLOPE + length * RNG.normal(size=pairs)) for x in draws]


@pytest.mark.parametrize("cosine", [-0.7, 0.0, 0.3, 0.9])
def test_the_cosine_and_its_doubt_are_right_in_the_mean(cosine):
    """With fewer pairs than numbers, and the doubt is the spread."""
    found, length = audits(cosine, 300), np.linalg.norm(SLOPE)
    slopes, errors, cosines, doubts = np.array([(f.slope, f.error, f.cosine, f.doubt) for f in found]).T
    # Four standard errors of a mean of 200, and of a spread, 5 %.
    assert np.mean(slopes) == pytest.approx(cosine * length, abs=4.0 * slopes.std() / np.sqrt(200))
    assert np.mean(errors) == pytest.approx(slopes.std(), rel=0.2)
    # A ratio is unbiased, and its spread known, to first order only: two such errors.
    assert np.mean(cosines) == pytest.approx(cosine, abs=0.3 * cosines.std())
    assert np.median(doubts) == pytest.approx(cosines.std(), rel=0.4)


@pytest.mark.parametrize("cosine", [-0.7, 0.9])
def test_what_few_pairs_decide_is_right(cosine):
    """32 pairs decide some of the 200, and all of those rightly."""
    decided = [f.downhill for f in audits(cosine, 32) if f.downhill]
    assert decided and all(downhill == np.sign(cosine) for downhill in decided)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_loss_of_jumps_alone_gets_its_verdict(sign):
    """The loss counts thresholds passed: no derivative anywhere, smoothed slope h phi(c / sigma) / sigma."""
    height, distance = RNG.normal(size=D), RNG.uniform(-2.0, 2.0, D)
    slope = height * np.exp(-0.5 * distance**2) / np.sqrt(2.0 * np.pi) / SMALL

    def jumps(x):
        return jnp.sum(jnp.where(x >= SMALL * distance, height, 0.0))

    directions, slopes = smoothed_slopes(jumps, ORIGIN, KEY, SMALL, 1024)
    found = agreement(sign * slope, directions, slopes)
    assert found.downhill == sign
    assert abs(found.slope - sign * np.linalg.norm(slope)) < 4.0 * found.error
    assert abs(found.cosine - sign) < 4.0 * found.doubt
    each = slopes[:, None] * directions
    # Each number's mean is normal: of 400, none beyond five errors.
    assert np.max(np.abs(each.mean(axis=0) - slope) / each.std(axis=0)) * np.sqrt(1024) < 5.0


def test_a_gradient_of_zero_is_judged_by_the_slope_alone():
    sloping, flat = (
        agreement(0.0 * SLOPE, *smoothed_slopes(loss, ORIGIN, KEY, SMALL, 128))
        for loss in (linear, lambda x: 0.0 * x[0])
    )
    assert np.isnan(sloping.cosine) and sloping.sloping
    # The slope's square from 128 pairs is known to sqrt(2 * 400) / 128 = 22 %, and 18 % for each pair's own spread.
    assert sloping.norm == pytest.approx(np.linalg.norm(SLOPE), rel=0.6)
    assert np.isnan(flat.cosine) and not flat.sloping and flat.norm == 0.0


def test_chance_alone_rarely_decides():
    """Of 1000 gradients without any relation to a loss of noise, some three in 1000 seem to point up or down."""
    gradient = at_angle(0.5)
    found = [agreement(gradient, RNG.normal(size=(8, D)), RNG.normal(size=8)).downhill != 0 for _ in range(1000)]
    # Twice 0.00135, and four standard errors of the count.
    assert np.mean(found) < 0.0027 + 4.0 * np.sqrt(0.0027 / 1000)
