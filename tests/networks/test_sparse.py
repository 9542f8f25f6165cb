"""Sparse projections against dense ones with zeros, drawn connections against counts."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxlif as jl
from jaxlif.networks import Dense, DenseParams, Sparse, SparseParams, connect, pairwise

IN, OUT, T = 145, 20, 30  # three blocks of 64 inputs, the last one not full
KEY = jax.random.key(0)
RNG = np.random.default_rng(3)
TARGET = pairwise(KEY, IN, OUT, 0.2)
SPARSE = connect(TARGET, OUT, RNG.normal(0.0, 0.5, TARGET.shape))
CLOSE = {"float64": 1e-13, "float32": 1e-5}  # sums of some ten numbers around 1, in another order


def dense_of(params, num_out):
    """Return the weight [num_in, num_out] of a dense layer that computes the same."""
    weight = np.zeros((len(params.weight), num_out + 1))
    np.add.at(weight, (np.arange(len(weight))[:, None], np.asarray(params.target)), np.asarray(params.weight))
    return weight[:, :num_out]


WEIGHT = dense_of(SPARSE, OUT)


def spikes(share):
    """Return inputs [T, IN], of which a share is not 0; not all of them 1, so that values count too."""
    return RNG.exponential(1.0, (T, IN)) * (RNG.random((T, IN)) < share)


def project(weight, x):
    return jl.simulate(Sparse(OUT), replace(SPARSE, weight=weight), x)[1]


@pytest.mark.parametrize("share", [0.0, 0.05, 1.0])
def test_sparse_equals_dense_with_zeros(share, dtype):
    inputs = jnp.asarray(spikes(share), dtype)
    y = project(SPARSE.weight.astype(dtype), inputs)
    assert y.dtype == dtype and SPARSE.weight.size < 0.5 * WEIGHT.size
    np.testing.assert_allclose(y, inputs @ jnp.asarray(WEIGHT, dtype), rtol=0, atol=CLOSE[dtype])


def test_gradients_equal_those_of_dense():
    """Also of inputs that are 0, through which a surrogate gradient flows, and of second order."""
    inputs = spikes(0.3)

    def loss(run):
        return lambda w, x: jnp.sum(jnp.sin(run(w, x)))

    of_sparse = loss(project)
    of_dense = loss(lambda w, x: jl.simulate(Dense(), DenseParams(weight=w), x)[1])
    gw, gx = jax.grad(of_sparse, argnums=(0, 1))(SPARSE.weight, inputs)
    dw, dx = jax.grad(of_dense, argnums=(0, 1))(jnp.asarray(WEIGHT), inputs)
    np.testing.assert_allclose(gx, dx, rtol=0, atol=1e-12)
    found = dense_of(replace(SPARSE, weight=gw), OUT)
    np.testing.assert_allclose(found, np.where(WEIGHT, dw, 0.0), rtol=0, atol=1e-12)
    assert not np.asarray(gw)[TARGET == OUT].any(), "places without a synapse have no gradient"
    # Forward mode over reverse mode: a product with the Hessian.

    def product(run, w):
        return jax.jvp(lambda x: jax.grad(run, argnums=1)(w, x), (inputs,), (np.ones_like(inputs),))[1]

    along, expected = product(of_sparse, SPARSE.weight), product(of_dense, jnp.asarray(WEIGHT))
    np.testing.assert_allclose(along, expected, rtol=0, atol=1e-11)


def test_all_rows_at_once_equal_the_loop():
    """What other devices than a CPU compute is here the tangent of the weight, in which the projection is linear."""
    inputs = spikes(0.3)
    other = jnp.asarray(RNG.normal(size=TARGET.shape))
    _, along = jax.jvp(lambda w: project(w, inputs), (SPARSE.weight,), (other,))
    np.testing.assert_allclose(along, project(other, inputs), rtol=0, atol=1e-13)


def test_it_compiles_for_other_devices():
    """Each device has its own way to add up: the export lowers all of them."""
    run = jax.jit(jax.vmap(jax.value_and_grad(lambda w, x: jnp.sum(jnp.sin(project(w, x)))), (None, 0)))
    platforms = ("cpu", "cuda", "tpu")
    assert export.export(run, platforms=platforms)(SPARSE.weight, jnp.ones((2, T, IN))).platforms == platforms


def test_a_batch_equals_one_by_one():
    inputs = jnp.stack([jnp.asarray(spikes(share)) for share in (0.0, 0.1, 0.9)])
    together = jax.vmap(lambda x: project(SPARSE.weight, x))(inputs)
    np.testing.assert_allclose(together, inputs @ WEIGHT, rtol=0, atol=1e-13)


def test_several_synapses_between_two_add_up():
    params = SparseParams(weight=jnp.array([[1.0, 2.0, 4.0]]), target=jnp.array([[1, 1, 2]]))
    assert Sparse(2).step(params, (), jnp.ones(1))[1].tolist() == [0.0, 3.0]


@pytest.mark.parametrize("self_connections", [True, False])
def test_pairs_are_connected_with_the_probability_each_on_its_own(self_connections):
    target = pairwise(jax.random.key(4), 300, 300, 0.1, self_connections=self_connections)
    drawn = dense_of(connect(target, 300), 300)
    assert set(np.unique(drawn)) == {0.0, 1.0}
    assert self_connections or not np.trace(drawn)
    for degrees in (drawn.sum(axis=0), drawn.sum(axis=1)):
        # Mean 30, variance 27, both from 300 degrees: five standard errors, of a variance sqrt(2/300) of it.
        assert abs(degrees.mean() - 30) < 5 * np.sqrt(27 / 300) and abs(degrees.var() / 27 - 1) < 5 * np.sqrt(2 / 300)


def test_the_key_decides_and_outputs_beyond_the_inputs_hear_every_input():
    drawn, again = (pairwise(KEY, 4, 400, 0.75, self_connections=False) for _ in range(2))
    np.testing.assert_array_equal(drawn, again)
    assert not np.array_equal(
        dense_of(connect(drawn, 400), 400), dense_of(connect(pairwise(KEY, 4, 400, 0.7), 400), 400)
    )
    reached = [{int(j) for j in row if j < 400} for row in drawn]
    assert all(i not in reached[i] for i in range(4))
    # Each of 396 outputs hears an input with probability 3/4: mean 297, five standard deviations of 8.6.
    assert all(abs(len(found - set(range(4))) - 297) < 43 for found in reached)


def test_weights_by_input_and_by_synapse():
    target = np.array([[0, 1], [1, 2]])
    assert connect(target, 2, [1.0, -4.0]).weight.tolist() == [[1.0, 1.0], [-4.0, 0.0]]
    assert connect(target, 2, [[1.0, 2.0], [3.0, 4.0]]).weight.tolist() == [[1.0, 2.0], [3.0, 0.0]]


REFUSED = {
    "input": (lambda: jl.simulate(Sparse(OUT), SPARSE, np.zeros((3, IN - 1))), r"takes an input \[145\], not \[144\]"),
    "beyond": (
        lambda: jl.simulate(Sparse(OUT - 1), SPARSE, np.zeros((3, IN))),
        r"target\[\d+, \d+\] = 20: target must be below num_out = 19",
    ),
    "negative": (
        lambda: jl.simulate(Sparse(OUT), replace(SPARSE, target=SPARSE.target.at[0, 0].set(-1)), np.zeros((3, IN))),
        r"target\[0, 0\] = -1: target must be 0 or more",
    ),
    "shapes": (
        lambda: replace(SPARSE, weight=SPARSE.weight[:, :2]).check(),
        r"weight \[145, 2\], target \[145, \d+\]: both must be",
    ),
    "probability": (
        lambda: pairwise(KEY, 10, 10, 1.2),
        r"probability = 1.2: probability must be above 0 and at most 1",
    ),
    "weight": (
        lambda: connect(TARGET, OUT, jnp.ones(3)),
        r"weight \[3\]: weight must be one number, one for each of 145",
    ),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
