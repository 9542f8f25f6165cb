"""Sparse projections against dense ones with zeros, drawn connections against counts, feedback against Recurrent."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export

import jaxlif as jl
from jaxlif.networks import Dense, DenseParams, Recurrent, RecurrentParams, Sequential, init_neurons
from jaxlif.networks.connectivity import connect, fixed_in_degree, from_dense, init_sparse, pairwise
from jaxlif.networks.delays import Delayed, DelayedRecurrent, DelayedRecurrentParams, DelayParams
from jaxlif.networks.feedback import Arriving, Feedback, FeedbackParams
from jaxlif.networks.sparse import Sparse, SparseParams, to_dense

IN, OUT, T = 45, 20, 30  # three turns of the loop over 16 rows, the last one not full
KEY = jax.random.key(0)
RNG = np.random.default_rng(3)
TARGET = pairwise(KEY, IN, OUT, 0.2)
WEIGHT = to_dense(init_sparse(jax.random.key(1), TARGET, OUT), OUT)
CLOSE = {"float64": 1e-13, "float32": 1e-5}  # sums of some ten numbers around 1, in another order


def spikes(share):
    """Return inputs [T, IN], of which a share is not 0; not all of them 1, so that values count too."""
    return RNG.exponential(1.0, (T, IN)) * (RNG.random((T, IN)) < share)


@pytest.mark.parametrize("share", [0.0, 0.05, 1.0])
def test_sparse_equals_dense_with_zeros(share, dtype):
    sparse, inputs = from_dense(np.asarray(WEIGHT, dtype)), jnp.asarray(spikes(share), dtype)
    _, y = jl.simulate(Sparse(OUT), sparse, inputs)
    assert y.dtype == dtype and sparse.weight.size < 0.5 * WEIGHT.size
    np.testing.assert_allclose(y, inputs @ jnp.asarray(WEIGHT, dtype), rtol=0, atol=CLOSE[dtype])


def test_all_rows_at_once_equal_the_loop():
    """What other devices than a CPU compute."""
    from jaxlif.networks.sparse import _active_rows, _all_rows

    sparse, x = from_dense(WEIGHT), jnp.asarray(spikes(0.3)[0])
    loop = _active_rows(sparse.weight, x, sparse.target, num_out=OUT)
    np.testing.assert_allclose(loop, _all_rows(sparse.weight, x, sparse.target, num_out=OUT), rtol=0, atol=1e-13)


def test_gradients_equal_those_of_dense():
    """Also of inputs that are 0, through which a surrogate gradient flows, and of second order."""
    inputs, sparse = spikes(0.3), from_dense(WEIGHT)

    def loss(project):
        return lambda w, x: jnp.sum(jnp.sin(project(w, x)))

    of_sparse = loss(lambda w, x: jl.simulate(Sparse(OUT), replace(sparse, weight=w), x)[1])
    of_dense = loss(lambda w, x: jl.simulate(Dense(), DenseParams(weight=w), x)[1])
    gw, gx = jax.grad(of_sparse, argnums=(0, 1))(sparse.weight, inputs)
    dw, dx = jax.grad(of_dense, argnums=(0, 1))(WEIGHT, inputs)
    np.testing.assert_allclose(gx, dx, rtol=0, atol=1e-12)
    np.testing.assert_allclose(to_dense(replace(sparse, weight=gw), OUT), np.where(WEIGHT, dw, 0.0), rtol=0, atol=1e-12)
    assert not np.asarray(gw)[np.asarray(sparse.target) == OUT].any(), "places without a synapse have no gradient"
    # Forward mode over reverse mode: a product with the Hessian.
    along = jax.jvp(lambda x: jax.grad(of_sparse, argnums=1)(sparse.weight, x), (inputs,), (jnp.ones_like(inputs),))[1]
    expected = jax.jvp(lambda x: jax.grad(of_dense, argnums=1)(WEIGHT, x), (inputs,), (jnp.ones_like(inputs),))[1]
    np.testing.assert_allclose(along, expected, rtol=0, atol=1e-11)


def test_it_compiles_for_other_devices():
    """Each device has its own way to add up: the export lowers all of them."""
    sparse = from_dense(WEIGHT)

    def loss(w, x):
        return jnp.sum(jnp.sin(jl.simulate(Sparse(OUT), replace(sparse, weight=w), x)[1]))

    batch = jnp.ones((2, T, IN))
    run = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))
    platforms = ("cpu", "cuda", "tpu")
    assert export.export(run, platforms=platforms)(sparse.weight, batch).platforms == platforms


def test_a_batch_equals_one_by_one():
    sparse, inputs = from_dense(WEIGHT), jnp.stack([jnp.asarray(spikes(share)) for share in (0.0, 0.1, 0.9)])
    together = jax.vmap(lambda x: jl.simulate(Sparse(OUT), sparse, x)[1])(inputs)
    np.testing.assert_allclose(together, inputs @ WEIGHT, rtol=0, atol=1e-13)


def test_several_synapses_between_two_add_up():
    params = SparseParams(weight=jnp.array([[1.0, 2.0, 4.0]]), target=jnp.array([[1, 1, 2]]))
    assert Sparse(2).step(params, (), jnp.ones(1))[1].tolist() == [0.0, 3.0]
    assert to_dense(params, 2).tolist() == [[0.0, 3.0]]


# ---------------------------------------------------------------------------------------------------------------- draws


def matrix(target, num_out):
    return np.asarray(to_dense(connect(target, num_out), num_out))


@pytest.mark.parametrize("self_connections", [True, False])
def test_a_fixed_in_degree_is_fixed_and_even(self_connections):
    """Every column sums to K, no pair twice; 40 drawings of 200 x 12 of 200: a pair occurs 2.4 times in the mean."""
    keys = jax.random.split(jax.random.key(2), 40)
    drawn = np.stack([matrix(fixed_in_degree(k, 200, 200, 12, self_connections=self_connections), 200) for k in keys])
    assert (drawn.sum(axis=1) == 12).all() and set(np.unique(drawn)) == {0.0, 1.0}
    assert self_connections or not np.trace(drawn, axis1=1, axis2=2).any()
    # The out-degree of 200 inputs over 40 drawings, mean 480, is binomial: none beyond five standard deviations.
    assert abs(drawn.sum(axis=(0, 2)) - 480).max() < 5 * np.sqrt(480)


@pytest.mark.parametrize("self_connections", [True, False])
def test_pairs_are_connected_with_the_probability_each_on_its_own(self_connections):
    drawn = matrix(pairwise(jax.random.key(4), 300, 300, 0.1, self_connections=self_connections), 300)
    assert set(np.unique(drawn)) == {0.0, 1.0}
    assert self_connections or not np.trace(drawn)
    for degrees in (drawn.sum(axis=0), drawn.sum(axis=1)):
        # Mean 30, variance 27, both from 300 degrees: five standard errors, of a variance sqrt(2/300) of it.
        assert abs(degrees.mean() - 30) < 5 * np.sqrt(27 / 300) and abs(degrees.var() / 27 - 1) < 5 * np.sqrt(2 / 300)


def test_equal_keys_draw_equal_connections():
    def draw(seed):
        return fixed_in_degree(jax.random.key(seed), 30, 30, 4)

    np.testing.assert_array_equal(draw(1), draw(1))
    assert not np.array_equal(matrix(draw(1), 30), matrix(draw(2), 30))


# ------------------------------------------------------------------------------------------------------------- feedback

N = 25
SQUARE = init_sparse(jax.random.key(5), fixed_in_degree(jax.random.key(6), N, N, 6), N, gain=5.0)
NEURON = replace(init_neurons(N), tau_m=np.linspace(5.0, 20.0, N))
DRIVE = RNG.normal(1.0, 2.0, (60, N))
LIF = jl.LIF(dt=1.0)


def test_feedback_through_sparse_equals_a_recurrent_layer():
    def sparse(w, x):
        params = FeedbackParams(neuron=NEURON, path=replace(SQUARE, weight=w))
        return jl.simulate(Feedback(LIF, Sparse(N)), params, x)[1]

    def dense(w, x):
        return jl.simulate(Recurrent(LIF), RecurrentParams(neuron=NEURON, weight=w), x)[1]

    def measured(run):
        return lambda w, x: jnp.mean(jnp.cos(jnp.arange(60.0))[:, None] * run(w, x).spikes)

    whole = to_dense(SQUARE, N)
    ours, theirs = sparse(SQUARE.weight, DRIVE), dense(whole, DRIVE)
    assert 0.05 < ours.spikes.mean() < 0.5
    np.testing.assert_array_equal(ours.spikes, theirs.spikes)
    np.testing.assert_allclose(ours.v, theirs.v, rtol=0, atol=1e-12)
    gw, gx = jax.grad(measured(sparse), argnums=(0, 1))(SQUARE.weight, DRIVE)
    dw, dx = jax.grad(measured(dense), argnums=(0, 1))(whole, DRIVE)
    assert np.abs(gx).max() > 1e-5
    np.testing.assert_allclose(gx, dx, rtol=1e-9, atol=1e-14)  # a surrogate gradient through 60 steps grows
    np.testing.assert_allclose(to_dense(replace(SQUARE, weight=gw), N), np.where(whole, dw, 0.0), rtol=1e-9, atol=1e-14)


def test_a_path_of_several_layers_is_the_delayed_recurrent_layer():
    line, weight = DelayParams(delay=np.linspace(0.0, 6.0, N)), to_dense(SQUARE, N)
    path = Sequential((Delayed(1.0, 6.0), Dense()))
    params = FeedbackParams(neuron=NEURON, path=(line, DenseParams(weight=weight)))
    ours = jl.simulate(Feedback(LIF, path), params, DRIVE)[1]
    cell = DelayedRecurrent(LIF, 1.0, 6.0)
    theirs = jl.simulate(cell, DelayedRecurrentParams(neuron=NEURON, weight=weight, line=line), DRIVE)[1]
    np.testing.assert_array_equal(ours.spikes, theirs.spikes)


def synaptic_by_hand(weight, tau_syn, arrivals):
    """Exact integration of LIF neurons with K = 2 exponential currents, spikes fed back one step later."""
    n = weight.shape[0]
    v, current, refractory, spikes = np.zeros(n), np.zeros((2, n)), np.zeros(n, int), np.zeros(n)
    tau_m, dt, train = 10.0, 1.0, []
    propagator = (np.exp(-dt / tau_syn) - np.exp(-dt / tau_m)) / (tau_m / tau_syn - 1.0) * -1.0  # 1/(tau_m) convolution
    for x in arrivals:
        rise = (propagator[:, None] * current).sum(axis=0)
        v = np.where(refractory > 0, v, v * np.exp(-dt / tau_m) + rise)
        current = current * np.exp(-dt / tau_syn)[:, None] + (x + spikes @ weight).reshape(2, n)
        spikes = ((v >= 1.0) & (refractory == 0)).astype(float)
        refractory = np.where(spikes > 0, 2, np.maximum(refractory - 1, 0))
        v = np.where(spikes > 0, 0.0, v)
        train.append(spikes)
    return np.stack(train)


def test_synapses_of_two_kinds_in_a_sparse_network():
    """A network of exponential synapses, excitatory and inhibitory, against a loop in NumPy."""
    tau_syn = np.array([5.0, 8.0])
    # Neurons 0 to 19 excite (targets 0 to N - 1), the others inhibit (N to 2 N - 1, the second kind).
    target = np.array(fixed_in_degree(jax.random.key(7), N, N, 6))
    target = np.where(target == N, 2 * N, target + np.where(np.arange(N) < 20, 0, N)[:, None])
    path = connect(target, 2 * N, jnp.where(jnp.arange(N) < 20, 0.6, -2.0))
    neuron = jl.SynapticParams(
        neuron=replace(init_neurons(N, tau_m=10.0), t_ref=2.0), synapse=jl.CurrentParams(tau_syn=tau_syn)
    )
    cell = Feedback(Arriving(jl.Synaptic(LIF, jl.ExponentialCurrent()), kinds=2), Sparse(2 * N))
    inputs = np.concatenate([RNG.exponential(0.6, (80, N)), np.zeros((80, N))], axis=1)
    ours = jl.simulate(cell, FeedbackParams(neuron=neuron, path=path), inputs)[1].spikes
    assert 0.02 < ours.mean() < 0.3
    np.testing.assert_array_equal(ours, synaptic_by_hand(np.asarray(to_dense(path, 2 * N)), tau_syn, inputs))


def test_synapses_are_a_layer_of_a_network():
    """Sequential(Dense, Arriving(Synaptic)) is the neuron under the projected arrivals, voltage jumps too."""
    weight = jnp.asarray(RNG.normal(0.5, 1.0, (4, N)))
    x = (RNG.random((40, 4)) < 0.3).astype(float)
    plain = jl.LIFParams(tau_m=10.0, r_m=1.0, v_rest=0.0, v_th=1.0, v_reset=0.0, t_ref=0.0)
    for synapse, own, arrivals in (
        (jl.ExponentialCurrent(), jl.CurrentParams(tau_syn=4.0), (x @ weight)[:, None]),
        (jl.VoltageJump(), None, x @ weight),
    ):
        neuron, params = jl.Synaptic(LIF, synapse), jl.SynapticParams(neuron=plain, synapse=own)
        network = Sequential((Dense(), Arriving(neuron)))
        ours = jl.simulate(network, (DenseParams(weight=weight), params), x)[1].output
        theirs = jl.simulate(neuron, params, jl.Drive(arrivals, jnp.zeros((40, N))))[1]
        assert ours.spikes.mean() > 0.01
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_the_weights_of_a_sparse_network_are_fitted_and_audited():
    cell, params = Sequential((Feedback(LIF, Sparse(N)),)), (FeedbackParams(neuron=NEURON, path=SQUARE),)

    def rate(output):
        return jnp.mean(output.output.spikes)

    def loss(p, x):
        return (rate(jl.simulate(cell, p, x)[1]) - 0.3) ** 2

    fit = jl.fit(loss, params, {"*.weight": jl.REAL}, optimizer=optax.adam(0.1), num_steps=20, data=DRIVE)
    assert fit.loss < 0.5 * fit.losses[0]
    np.testing.assert_array_equal(fit.params[0].path.target, SQUARE.target)
    audit = jl.audit_gradient(rate, cell, params, DRIVE, key=KEY, names=("0.path.weight",), samples=8)
    assert audit.names == ("0.path.weight",) and np.isfinite(audit.cell["0.path.weight"]).all()


# ------------------------------------------------------------------------------------------------------------- refusals


def test_what_is_wrong_is_refused_by_name():
    good = connect(TARGET, OUT)
    with pytest.raises(ValueError, match=r"weight \[45\] takes an input \[45\], not \[44\]"):
        jl.simulate(Sparse(OUT), good, jnp.zeros((3, IN - 1)))
    with pytest.raises(ValueError, match=r"target\[\d+, \d+\] = 20: target must be below num_out = 19"):
        jl.simulate(Sparse(OUT - 1), good, jnp.zeros((3, IN)))
    with pytest.raises(ValueError, match=r"target\[0, 0\] = -1: target must be 0 or more"):
        jl.simulate(Sparse(OUT), replace(good, target=good.target.at[0, 0].set(-1)), jnp.zeros((3, IN)))
    with pytest.raises(ValueError, match=r"weight \[45, 2\], target \[45, \d+\]: both must be"):
        replace(good, weight=good.weight[:, :2]).check()
    with pytest.raises(ValueError, match=r"in_degree = 10: in_degree must not exceed the 9 inputs"):
        fixed_in_degree(KEY, 10, 10, 10, self_connections=False)
    with pytest.raises(ValueError, match=r"probability = 1.2: probability must be above 0 and at most 1"):
        pairwise(KEY, 10, 10, 1.2)
    with pytest.raises(ValueError, match=r"weight \[3\]: weight must be one number or one for each of 45 inputs"):
        connect(TARGET, OUT, jnp.ones(3))
    with pytest.raises(ValueError, match="target has no synapse"):
        init_sparse(KEY, np.full((3, 1), 4), 4)
    with pytest.raises(ValueError, match=r"input \[5\]: for 2 kinds of synapse it must be \[2 N\]"):
        cell = Arriving(jl.Synaptic(LIF, jl.ExponentialCurrent()), kinds=2)
        jl.simulate(cell, jl.SynapticParams(synapse=jl.CurrentParams()), jnp.zeros((3, 5)))
    with pytest.raises(ValueError, match="kinds = 0: kinds must be a whole number, 1 or more"):
        Arriving(jl.Synaptic(LIF, jl.ExponentialCurrent()), kinds=0)
