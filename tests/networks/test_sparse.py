"""Sparse projections against dense ones with zeros."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxlif as jl
from jaxlif.networks import Dense, DenseParams, Pairwise, Sparse, SparseParams, connect

IN, OUT, T = 145, 20, 30  # three blocks of 64 inputs, the last one not full
KEY = jax.random.key(0)
RNG = np.random.default_rng(3)
DRAWN = connect(KEY, Pairwise(0.15, autapses=True), IN, OUT)
TARGET = np.asarray(DRAWN.target)
SPARSE = replace(DRAWN, weight=jnp.asarray(np.where(TARGET == OUT, 0.0, RNG.normal(0.0, 0.5, TARGET.shape))))
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
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
