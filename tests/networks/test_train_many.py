"""Several trainings at once against each alone: starts, keys, learning rates, and an early end of one of them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlif as jl
from jaxlif.networks import TrainingWarning
from jaxlif.networks import train_many as many
from tests.networks.training_problem import LINE, ROUNDING, line_loss, train

KEYS, RATES = jax.random.split(jax.random.key(5), 4), np.array([0.01, 0.1, 0.4, 0.2])
STARTS = {"w": jnp.array([0.0, 0.5, 1.5, -1.0]), "c": jnp.zeros(4)}
BOUNDS = {"w": (-9.0, 9.0), "c": jl.REAL}
SGD = {"optimizer": optax.sgd(0.1), "epochs": 6, "batch_size": 5}


def noisy(params, batch, key):
    value = line_loss(params, batch, key) + 0.1 * params["w"] * jax.random.normal(key)
    return value, {"minus": -value}


def adam(rate):
    return optax.chain(optax.adam(rate), optax.contrib.reduce_on_plateau(factor=0.5, patience=1))


def one_of(tree, s):
    return jax.tree.map(lambda x: x[s], tree)


def close(one, other):
    for a, b in zip(*(jax.tree.leaves((x.params, x.last_params, x.history)) for x in (one, other)), strict=True):
        np.testing.assert_allclose(a, b, **ROUNDING)
    assert (one.best_epoch, one.message, one.completed) == (other.best_epoch, other.message, other.completed)


def test_each_equals_its_training_alone():
    """Starts, keys, rates, means and plateaus are each its own; a network is in experiments/training_overhead.py."""
    options = {"epochs": 9, "batch_size": 6, "average": 0.5, "metric": "minus"}
    options["validation"] = {name: x[:6] for name, x in LINE.items()}
    together = many(noisy, STARTS, BOUNDS, LINE, optimizer=adam, hyper=RATES, keys=KEYS, **options)
    close(together[1], train(noisy, one_of(STARTS, 1), BOUNDS, LINE, optimizer=adam(0.1), key=KEYS[1], **options))
    assert len({result.history["plateau_scale"][-1] for result in together}) > 1


def test_threads_compute_in_the_precision_of_the_caller():
    """Double precision of a block, where JAX starts with single, is not that of a new thread."""
    jax.config.update("jax_enable_x64", False)
    try:
        with jax.enable_x64(True):
            together = many(noisy, STARTS, BOUNDS, LINE, keys=KEYS, **SGD)
            alone = train(noisy, one_of(STARTS, 1), BOUNDS, LINE, key=KEYS[1], **SGD)
    finally:
        jax.config.update("jax_enable_x64", True)
    close(together[1], alone)


def test_one_that_fails_ends_there_and_the_others_go_on():
    """Its loss has no value beyond a point that only the last seed starts from."""

    def late(params, batch, key):
        return line_loss(params, batch, key) + params["w"] * jnp.where(params["w"] > 1.4, jnp.nan, 0.0)

    data = LINE | {"y": LINE["y"] / 6.0}
    with pytest.warns(TrainingWarning) as caught:
        together = many(late, STARTS, BOUNDS, data, keys=KEYS, **SGD)
    assert [str(w.message).partition(":")[0] for w in caught] == ["seed 2"]
    for s in (0, 1, 3):
        close(together[s], train(late, one_of(STARTS, s), BOUNDS, data, key=KEYS[s], **SGD))
    with pytest.warns(TrainingWarning):
        close(together[2], train(late, one_of(STARTS, 2), BOUNDS, data, key=KEYS[2], **SGD))
    assert len(together[2].history["loss"]) == 3 and len(together[0].history["loss"]) == 6


def test_all_share_the_batches_of_a_stream():
    def batches(epoch):
        order = np.random.default_rng(epoch).permutation(20).reshape(4, 5)
        return (jax.tree.map(lambda x, i=i: np.asarray(x)[i], LINE) for i in order)

    together = many(noisy, STARTS, BOUNDS, batches, keys=KEYS, **SGD)
    for s in range(4):
        close(together[s], train(noisy, one_of(STARTS, s), BOUNDS, batches, key=KEYS[s], **SGD))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"params": {"w": jnp.zeros(4), "c": jnp.zeros(2)}},
            r"^params of shapes .*: all must be arrays \[seeds, ...\]",
        ),
        ({"params": {"w": 0.0, "c": jnp.zeros(4)}}, "^params of shapes"),
        ({"params": STARTS | {"w": jnp.array([0.0, 1.0, 2.0, 10.0])}}, "^w = 10: the start must lie inside its bounds"),
        ({"keys": KEYS[:2]}, r"^key has shape \(2,\): one for each of the 4 starts is needed$"),
        ({"hyper": RATES[:2], "optimizer": optax.sgd}, "^hyper is of 2 seeds: params are of 4$"),
        ({"hyper": RATES}, "^optimizer must be a function"),
        ({"optimizer": optax.sgd}, "^optimizer = <function sgd"),
        ({"validation": 0.2}, "^validation = 0.2: all share held-out samples; cut them off by hold_out$"),
        ({"bounds": {}}, "^bounds are empty"),
    ],
)
def test_what_is_refused(changes, message):
    call = {"loss": line_loss, "params": STARTS, "bounds": BOUNDS, "data": LINE, "keys": KEYS} | SGD
    with pytest.raises(ValueError, match=message):
        many(**call | changes)
