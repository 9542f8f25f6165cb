"""Bad calls of a network's parts, as a user makes them: each is one line that names the field, none is a number.

Most of these returned numbers: a bias of one entry, integers as weights (which made integers of the inputs), a window
beyond the image, connections to targets that do not exist. They run without the strictness of these tests, under which
JAX itself would refuse some.
"""

from dataclasses import replace

import jax
import numpy as np
import optax
import pytest

import jaxlif as jl
from jaxlif.networks import (
    AllToAll,
    Delayed,
    DelayParams,
    Dense,
    DenseParams,
    Feedback,
    FeedbackParams,
    Graph,
    Pairwise,
    Recurrent,
    RecurrentParams,
    Sequential,
    Sparse,
    SparseParams,
    alive_gain,
    balance,
    connect,
    init_dense,
    init_neurons,
    train,
)
from jaxlif.networks.encoders import latency_code, level_crossing, rate_code

KEY, N, NAN = jax.random.key(0), 3, float("nan")
X = np.ones((4, N), np.float32)
WEIGHT, COLUMN = np.eye(N, dtype=np.float32), np.ones((N, 1), np.float32)
NEURONS, LIF, ADAM = init_neurons(N), jl.LIF(dt=1.0), optax.adam(0.1)


def dense(weight, bias=None):
    return lambda: jl.simulate(Dense(), DenseParams(weight=weight, bias=bias), X)


def recurrent(weight, neuron=LIF):
    return lambda: jl.simulate(Recurrent(neuron), RecurrentParams(neuron=NEURONS, weight=weight), X)


def chain(layers, params):
    return lambda: jl.simulate(Sequential(layers), params, X)


PAIR = (DenseParams(weight=WEIGHT), NEURONS)
REFUSED = {
    "a bias of one": (dense(WEIGHT, X[0, :1]), r"bias is float32 \[1\]: bias must be a floating array \[3\]"),
    "a bias that is a column": (dense(WEIGHT, COLUMN), r"bias is float32 \[3, 1\]: bias must be"),
    "a bias that is a number": (dense(WEIGHT, 0.5), "bias is float: bias must be a floating array"),
    "a weight of integers": (dense(WEIGHT.astype(int)), r"weight is int64 \[3, 3\]: weight must be a floating array"),
    "a weight that is a row": (dense(WEIGHT[0]), r"weight is float32 \[3\]: weight must be"),
    "a weight that is a list": (dense(WEIGHT.tolist()), "weight is list: weight must be"),
    "a weight with a hole": (dense(WEIGHT * NAN), r"weight\[0, 0\] = nan: weight must be finite"),
    "recurrence that is a column": (recurrent(COLUMN), r"weight is float32 \[3, 1\]: .* array \[N, N\]"),
    "recurrence with a hole": (recurrent(WEIGHT * NAN), r"weight\[0, 0\] = nan"),
    "neurons in a column": (
        lambda: jl.simulate(
            Recurrent(LIF), RecurrentParams(neuron=replace(NEURONS, tau_m=10.0 * COLUMN), weight=WEIGHT), X
        ),
        r"weight \[3, 3\] takes an input \[3\], not \[3, 3\]",
    ),
    "recurrence without spikes": (recurrent(WEIGHT, jl.LeakyIntegrator()), "feeds spikes back, and it has none"),
    "delays that are a column": (
        lambda: jl.simulate(Delayed(1.0, 5.0), DelayParams(delay=COLUMN), X),
        r"delay \[3, 1\]: it does not go with an input \[3\]",
    ),
    "no tuple of layers": (lambda: Sequential([Dense()]), "layers = list: layers must be a tuple of cells"),
    "a layer that is a class": (lambda: Sequential((LIF, Dense)), "layer 1 = the class Dense: Sequential needs a cell"),
    "no tuple of params": (chain((LIF,), NEURONS), "params = LIFParams: params must be a tuple"),
    "too few params": (chain((Dense(), LIF), PAIR[:1]), "params are for 1 layers: this network has 2"),
    "params of other layers": (chain((Dense(), LIF), PAIR[::-1]), r"layer 0 \(Dense\): params = LIFParams: Dense"),
    "params of a graph": (
        lambda: jl.simulate(Graph((LIF,), ((-1, 0),)), NEURONS, X),
        "params = LIFParams: params must",
    ),
    "params of no loop": (
        lambda: jl.simulate(Feedback(LIF, Dense()), NEURONS, X),
        "params = LIFParams, inputs = ndarray: Feedback takes others",
    ),
    "half an input": (lambda: init_dense(KEY, 2.5, 2), "num_in = 2.5: num_in must be a whole number"),
    "a seed": (lambda: init_dense(0, 3, 2), "key = 0: key must be a JAX random key"),
    "a gain without end": (lambda: init_dense(KEY, 3, 2, gain=float("inf")), "gain = inf: gain must be finite"),
    "a path of another step": (
        lambda: Feedback(LIF, Delayed(0.5, 5.0)),
        "dt must be the same: the neuron has 1 ms and the path 0.5 ms",
    ),
    "a path to one of them": (
        lambda: jl.simulate(Feedback(LIF, Dense()), FeedbackParams(neuron=NEURONS, path=DenseParams(weight=COLUMN)), X),
        r"path returns \[1\]: it must be what the neurons take, \[3\]",
    ),
    "targets that are fractions": (
        lambda: jl.simulate(Sparse(3), SparseParams(weight=COLUMN, target=0.6 * COLUMN), X),
        "target are float32: target must be integers",
    ),
    "a negative membrane": (lambda: init_neurons(3, tau_m=-1.0), r"tau_m\[0\] = -1 ms"),
    "membranes of others": (lambda: init_neurons(3, tau_m=X[0, :2]), r"tau_m has shape \(2,\): tau_m must be"),
    "a weight that is none": (lambda: connect(KEY, AllToAll(), 3, 3, NAN), "weight = nan: weight must be finite"),
    "a weight for nobody": (
        lambda: connect(KEY, AllToAll(), 3, 3, [1.0, 2.0]),
        r"weight \[2\]: weight must be one number, or one for each of 3",
    ),
    "a probability in words": (lambda: Pairwise("0.1"), "probability = '0.1': probability must be a number"),
    "half a step": (lambda: rate_code(KEY, 0.5, 2.5), "num_steps = 2.5: num_steps must be a whole number"),
    "the latency of half a step": (lambda: latency_code(0.5, 2.5), "num_steps = 2.5"),
    "steps for other channels": (lambda: level_crossing(X, X[0, :2]), r"step has shape \(2,\): step must be a number"),
    "a cell for neurons": (lambda: alive_gain(LIF, 20.0, input_rate=50.0, dt=1.0), "neuron = LIF: neuron must be the"),
    "a bias that is none": (lambda: alive_gain(NEURONS, 20.0, input_rate=50.0, dt=1.0, bias=NAN), "bias = nan"),
    "a kernel to balance": (
        lambda: balance(DenseParams(weight=WEIGHT[None, :, :])),
        r"weight is float32 \[1, 3, 3\]: weight must be a floating array \[num_in, num_out\]",
    ),
    "neurons to balance": (lambda: balance(NEURONS), "params = LIFParams: Dense takes DenseParams"),
    "a row to balance": (lambda: balance(DenseParams(weight=WEIGHT[0])), r"weight is float32 \[3\]"),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_by_name(call, message):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        with pytest.raises(ValueError, match=message):
            call()


READOUT = (Dense(), LIF, Dense(), jl.LeakyIntegrator(dt=1.0))


def scored(params, batch, key=None):
    """Return the loss of a network that holds these neurons and this readout."""
    neuron, readout = params
    layers = (DenseParams(weight=WEIGHT), neuron, DenseParams(weight=WEIGHT), readout)
    return jax.vmap(lambda x: jl.simulate(Sequential(READOUT), layers, x)[1].output.v.mean())(batch).mean()


@pytest.mark.parametrize(
    "go",
    [
        lambda params: scored(params, X[None]),
        lambda params: jl.fit(scored, params, {"1.tau_m": (1.0, 99.0)}, optimizer=ADAM, num_steps=1, data=X[None]),
        lambda params: train(scored, params, {"*": jl.REAL}, X[None], optimizer=ADAM, epochs=1, batch_size=1, key=KEY),
    ],
    ids=["simulate", "fit", "train"],
)
def test_neurons_in_mV_beside_normalised_ones(go):
    message = r"layer 1 \(LIF\): inputs of 1 are at most 1 pA for neurons that need 150 pA to spike"
    with pytest.raises(ValueError, match=message):
        go((jl.LIFParams(), jl.LeakyParams()))


def test_neurons_of_one_unit_are_not_refused():
    cells = replace(jl.LIFParams(), v_rest=np.array([-55.0, -70.0, -90.0]), v_reset=-95.0, v_th=-40.0)
    for pair in (
        (cells, jl.LeakyParams(r_m=0.1, v_rest=-70.0)),
        (jl.LIFParams(r_m=15.1), jl.LeakyParams()),  # 1 pA makes them spike
        (jl.LIFParams().normalised(), jl.LeakyParams()),
        (NEURONS, jl.LeakyParams(v_rest=np.array([-25.0, 3.0, 0.0]))),  # where training moved it
    ):
        Sequential(READOUT).check((DenseParams(weight=WEIGHT), pair[0], DenseParams(weight=WEIGHT), pair[1]))


def test_steps_that_differ_by_rounding_are_the_same():
    assert Sequential((jl.LIF(dt=0.1 + 0.2), jl.LIF(dt=0.3))).dt == pytest.approx(0.3)
    with pytest.raises(ValueError, match="dt must be the same in all layers"):
        Sequential((jl.LIF(dt=0.3), jl.LIF(dt=0.3001)))
