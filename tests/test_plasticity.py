"""Synapses that change with use: NEST's weights at every spike, and pair sums in NumPy."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.networks import Dense, DenseParams, Feedback, FeedbackParams, Sequential

NEST = np.load(Path(__file__).parent / "data" / "nest_plasticity.npz", allow_pickle=False)
META = json.loads(str(NEST["meta"]))
DT, T = META["dt"], 10_050
SHORT, LONG = ("depressing", "facilitating", "fast"), ("additive", "multiplicative", "between")


def train(steps, delay=0):
    """Return spikes [T] at NEST's steps: what it calls step s is the end of our step s - 1."""
    return jnp.zeros(T).at[jnp.asarray(steps.astype(int) - 1 + delay)].set(1.0)


# --------------------------------------------------------------------------------------------------------- short term


@pytest.mark.parametrize("model", ["tsodyks2", "tsodyks"])
@pytest.mark.parametrize("name", SHORT)
def test_short_term_plasticity_is_nests(dtype, name, model):
    p = META["cases"][name]
    tau_psc = META["tau_psc"] if model == "tsodyks" else None
    params = jl.TsodyksMarkramParams(use=p["U"], tau_rec=p["tau_rec"], tau_fac=p["tau_fac"], tau_psc=tau_psc)
    released = np.asarray(jl.simulate(jl.TsodyksMarkram(dt=DT), params, train(NEST["pre"]))[1])
    at = NEST["pre"].astype(int) - 1
    np.testing.assert_allclose(released[at], NEST[f"{name}/{model}"], rtol={"float64": 1e-11, "float32": 2e-4}[dtype])
    assert np.count_nonzero(released) == len(at)


def test_equal_recovery_and_current_are_the_limit():
    """NEST refuses tau_rec = tau_psc; there it is the mean of those beside it, to the square of the distance."""
    spikes = jnp.zeros(300).at[jnp.array([3, 60, 200])].set(1.0)

    def released(tau_rec):
        params = jl.TsodyksMarkramParams(use=0.6, tau_rec=tau_rec, tau_fac=20.0, tau_psc=5.0)
        return jl.simulate(jl.TsodyksMarkram(dt=DT), params, spikes)[1][jnp.array([60, 200])]

    np.testing.assert_allclose(released(5.0), 0.5 * (released(4.999) + released(5.001)), rtol=1e-6)
    slope = jax.jacfwd(released)(5.0)
    np.testing.assert_allclose(slope, (released(5.001) - released(4.999)) / 0.002, rtol=1e-5)


def test_releases_go_through_a_projection():
    """In front of a layer the weights are those of a release of everything."""
    spikes = jnp.asarray(np.random.default_rng(0).random((50, 4)) < 0.2, float)
    params = jl.TsodyksMarkramParams(use=jnp.array([0.1, 0.3, 0.6, 1.0]), tau_rec=20.0, tau_fac=10.0)
    weight = jnp.arange(12.0).reshape(4, 3)
    released = jl.simulate(jl.TsodyksMarkram(dt=1.0), params, spikes)[1]
    network = Sequential((jl.TsodyksMarkram(dt=1.0), Dense()))
    arriving = jl.simulate(network, (params, DenseParams(weight=weight)), spikes)[1].output
    np.testing.assert_allclose(arriving, released @ weight, rtol=1e-12)
    # Without recovery between them nothing is left: 1 - U of each spike, of those that use everything nothing.
    slow = jl.TsodyksMarkramParams(use=params.use, tau_rec=1e12)
    total = jl.simulate(jl.TsodyksMarkram(dt=1.0), slow, spikes)[1].sum(axis=0)
    np.testing.assert_allclose(total, 1.0 - (1.0 - np.asarray(params.use)) ** np.asarray(spikes.sum(axis=0)), rtol=1e-6)


# ---------------------------------------------------------------------------------------------------------- long term


def stdp_params(name, weight, **change):
    p = META["cases"][name] | change
    return jl.STDPParams(
        weight=weight,
        w_max=p["Wmax"],
        tau_plus=p["tau_plus"],
        tau_minus=META["tau_minus"],
        rate=p["lambda"],
        alpha=p["alpha"],
        mu_plus=p["mu_plus"],
        mu_minus=p["mu_minus"],
    )


@pytest.mark.parametrize("delay", [0.1, 1.0])
@pytest.mark.parametrize("name", LONG)
def test_pair_based_plasticity_is_nests(dtype, name, delay):
    """Its delay is dendritic: it is that of the spikes behind. Some fall into the same step as those before."""
    pre, post = train(NEST["pre"]), train(NEST["post"], round(delay / DT))
    params = stdp_params(name, jnp.full((1, 1), META["cases"][name]["weight"]))
    _, arriving = jl.simulate(jl.STDP(dt=DT), params, jl.Pairs(pre[:, None], post[:, None]))
    found = np.asarray(arriving)[NEST["pre"].astype(int) - 1, 0]
    expected = NEST[f"{name}/{delay}"]
    np.testing.assert_allclose(found, expected, rtol=0, atol={"float64": 1e-12, "float32": 2e-5}[dtype])
    assert np.ptp(expected) > 0.3


def test_the_nest_cases_meet_their_bounds():
    p, trains = META["cases"]["additive"], (np.asarray(train(NEST[name]))[:, None] for name in ("pre", "post"))
    assert all_pairs(*trains, np.ones((1, 1)), p, DT) > 1.5 * p["Wmax"]  # without bounds
    assert (NEST["between/1.0"] == 0.0).sum() >= 1


def all_pairs(pre, post, weight, p, dt=1.0):
    """Return the additive change of w [N, M] by the definition: a sum over all pairs, without bounds."""
    change = np.zeros_like(weight)
    for i, j in np.ndindex(weight.shape):
        for s in np.flatnonzero(pre[:, i]):
            lag = dt * (np.flatnonzero(post[:, j]) - s)
            change[i, j] += np.exp(-lag[lag > 0] / p["tau_plus"]).sum()
            change[i, j] -= p["alpha"] * np.exp(lag[lag < 0] / META["tau_minus"]).sum()
    return p["lambda"] * p["Wmax"] * change


@pytest.mark.parametrize("edges", [False, True])
def test_many_synapses_are_the_sum_over_pairs(edges):
    rng = np.random.default_rng(3)
    pre, post = (rng.random((300, n)) < 0.02 for n in (4, 3))
    weight = rng.uniform(0.9, 1.1, (4, 3))
    p = META["cases"]["additive"] | {"lambda": 0.002}
    expected = weight + all_pairs(pre, post, weight, p)
    params = stdp_params("additive", jnp.asarray(weight), **{"lambda": 0.002})
    inputs = jl.Pairs(jnp.asarray(pre, float), jnp.asarray(post, float))
    if edges:  # two synapses a neuron at most, 3 marks none
        target = np.array([[0, 2], [1, 3], [2, 0], [3, 1]])
        held = np.take_along_axis(np.c_[weight, np.zeros(4)], target, axis=1)
        params = jl.STDPParams(**vars(params) | {"weight": jnp.asarray(held), "target": jnp.asarray(target)})
        expected = np.where(target < 3, np.take_along_axis(np.c_[expected, np.zeros(4)], target, axis=1), 0.0)
    state, arriving = jl.simulate(jl.STDP(dt=1.0, num_out=3 if edges else None), params, inputs)
    held = np.asarray(state.weight) * (target < 3) if edges else state.weight
    np.testing.assert_allclose(held, expected, rtol=1e-11)
    last = np.flatnonzero(pre.any(axis=1))[-1]
    final = np.zeros((4, 4))
    np.put_along_axis(final, target if edges else np.tile(np.arange(3), (4, 1)), held, axis=1)
    np.testing.assert_allclose(arriving[last], (pre[last] @ final)[:3], atol=0.05)  # it changes after the last spike
    assert np.abs(arriving[last]).max() > 0.5


def test_a_plastic_path_feeds_back():
    """Against a plain loop: spikes of a step arrive in the next with weights that those one step before have moved."""
    current = jnp.asarray(np.random.default_rng(4).normal(250.0, 150.0, (200, 3)))
    weight, neuron = np.full((3, 3), 60.0), jl.LIFParams(t_ref=2.0)
    path = jl.STDPParams(weight=jnp.asarray(weight), w_max=100.0, rate=0.05)
    cell = Feedback(jl.LIF(dt=1.0), jl.PlasticPath(jl.STDP(dt=1.0)))
    state, output = jl.simulate(cell, FeedbackParams(neuron=neuron, path=path), current)
    spikes = np.asarray(output.spikes)
    before, behind, drive = np.zeros(3), np.zeros(3), np.zeros((200, 3))
    decay = np.exp(-1.0 / 20.0)
    for n in range(1, 200):
        pre, post = spikes[n - 1], spikes[n - 2] if n > 1 else np.zeros(3)
        before, behind = before * decay, behind * decay
        weight = weight + 0.05 * (100.0 - weight) * np.outer(before, post)
        weight = weight - 0.05 * weight * np.outer(pre, behind)
        drive[n], before, behind = pre @ weight, before + pre, behind + post
    np.testing.assert_allclose(state.path.synapses.weight, weight, rtol=1e-12)
    alone = jl.simulate(jl.LIF(dt=1.0), neuron, current + drive)[1]
    np.testing.assert_array_equal(spikes, alone.spikes)
    assert spikes.sum() > 20 and np.abs(weight - 60.0).max() > 5.0


def test_gradients_through_plasticity_equal_central_differences():
    """Of use, time constants, weights and powers, at weights that stay inside their bounds."""
    rng = np.random.default_rng(6)
    pre, post = (jnp.asarray(rng.random((60, n)) < 0.15, float) for n in (2, 3))
    short = jl.TsodyksMarkramParams(use=0.4, tau_rec=20.0, tau_fac=15.0, tau_psc=4.0)
    start = jnp.asarray(rng.uniform(0.5, 1.5, (2, 3)))
    plastic = stdp_params("between", start, Wmax=2.0)

    def loss(params):
        released = jl.simulate(jl.TsodyksMarkram(dt=1.0), params[0], pre)[1]
        return jnp.sum(released**2) + jnp.sum(jl.simulate(jl.STDP(dt=1.0), params[1], jl.Pairs(pre, post))[1] ** 2)

    point, unravel = jax.flatten_util.ravel_pytree(jax.tree.map(jnp.asarray, (short, plastic)))
    gradient = jax.jit(jax.grad(lambda x: loss(unravel(x))))(point)
    h = 1e-5
    moved = jnp.concatenate([jnp.eye(len(point)) * h, -jnp.eye(len(point)) * h]) + point[None]
    plus, minus = np.split(np.asarray(jax.jit(jax.vmap(lambda x: loss(unravel(x))))(moved)), 2)
    np.testing.assert_allclose(gradient, (plus - minus) / (2 * h), rtol=1e-6, atol=1e-7)
    assert (gradient != 0.0).all()


# -------------------------------------------------------------------------------------------------------------- rules


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: jl.TsodyksMarkramParams(use=1.5).check(), "use = 1.5: use must be 1 or less"),
        (lambda: jl.TsodyksMarkramParams(use=0.0).check(), "use = 0: use must be greater than 0"),
        (lambda: jl.TsodyksMarkramParams(tau_fac=-1.0).check(), "tau_fac = -1 ms: tau_fac must be 0 ms or more"),
        (lambda: jl.TsodyksMarkramParams(tau_rec=0.0, tau_psc=1.0).check(), "tau_rec = 0 ms: tau_rec must be greater"),
        (
            lambda: jl.simulate(jl.TsodyksMarkram(), jl.TsodyksMarkramParams(), jnp.full(3, 2.0)),
            "inputs holds values other than 0 and 1",
        ),
        (
            lambda: stdp(weight=jnp.full((2, 3), 101.0)),
            r"weight\[0, 0\] = 101: weight must lie between 0 and w_max = 100",
        ),
        (lambda: stdp(weight=jnp.ones((2, 2))), r"pre \[2\] and post \[3\] in a step: they must be \[2\] and \[2\]"),
        (lambda: stdp(tau_minus=0.0), "tau_minus = 0 ms: tau_minus must be greater than 0 ms"),
        (
            lambda: stdp(target=jnp.zeros((2, 1), int)),
            r"weight has shape \(2, 3\) and target \(2, 1\): they must agree",
        ),
        (lambda: stdp(target=jnp.zeros((2, 3), int)), "num_out = None: STDP needs it where its synapses have a target"),
        (
            lambda: stdp(num_out=3, target=jnp.array([[0, 1, 2], [3, 4, -1]])),
            r"target\[1, 1\] = 4: target must be 0 to num_out = 3, which marks no synapse",
        ),
        (
            lambda: Sequential((Dense(), jl.STDP())),
            ".* = STDP: Sequential passes an array, and STDP takes a Pairs",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


def stdp(num_out=None, **change):
    params = jl.STDPParams(**{"weight": jnp.ones((2, 3))} | change)
    return jl.simulate(jl.STDP(num_out=num_out), params, jl.Pairs(jnp.zeros((4, 2)), jnp.zeros((4, 3))))
