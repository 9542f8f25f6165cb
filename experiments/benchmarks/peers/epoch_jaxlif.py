"""jaxlif: ``networks.train``, one epoch at a time, of ``Recurrent(LIF)`` and a leaky readout, as a user would write it.

Weights, biases and each neuron's time constant are free. Reset by subtraction, SuperSpike of slope 25.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # last, so that this script does not hide its library

from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import optax
from epoch_problem import LEARNING_RATE, NUM_HIDDEN, NUM_OUT, SKIP, TAU_M, TAU_READOUT, serve_epochs

import jaxlif as jl
from jaxlif.networks import (
    Dense,
    DenseParams,
    Recurrent,
    RecurrentParams,
    Sequential,
    cross_entropy,
    init_neurons,
    train,
)

SURROGATE = jl.SuperSpike(slope=25.0)
LIF = jl.LIF(dt=1.0, reset="subtract", surrogate=SURROGATE)
BOUNDS = {"*.weight": jl.REAL, "*.bias": jl.REAL, "*.tau_m": (0.5, 1000.0)}


def prepare(problem, cell=LIF, neurons=None, bounds=BOUNDS):
    network = Sequential((Dense(), Recurrent(cell), Dense(), jl.LeakyIntegrator(dt=1.0)))
    data = array(problem, "inputs"), array(problem, "labels").astype(jnp.int32)
    data = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), data)
    neurons = init_neurons(NUM_HIDDEN, tau_m=TAU_M) if neurons is None else neurons
    params = parameters(problem, neurons)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(LEARNING_RATE))
    options = {"optimizer": optimizer, "epochs": 1, "batch_size": problem.batch, "key": jax.random.key(0)}

    def loss(params, batch, key):
        inputs, labels = batch
        logits = jax.vmap(lambda x: jl.simulate(network, params, x)[1].output.v)(inputs)
        return cross_entropy(logits[:, SKIP:], labels[:, SKIP:])

    return lambda: float(train(loss, params, bounds, data, **options).history["loss"][-1])


def array(problem, name):
    """Read one array."""
    return jnp.asarray(np.fromfile(problem.path(name), np.float32).reshape(problem.shapes[name]))


def parameters(problem, neurons):
    """Return the network's parameters around its weights."""
    return (
        DenseParams(weight=array(problem, "weight"), bias=jnp.zeros(NUM_HIDDEN)),
        RecurrentParams(neuron=neurons, weight=array(problem, "recurrent")),
        DenseParams(weight=array(problem, "readout"), bias=jnp.zeros(NUM_OUT)),
        jl.LeakyParams(tau_m=jnp.full(NUM_OUT, TAU_READOUT), r_m=10.0),
    )


if __name__ == "__main__":
    serve_epochs(version("jaxlif"), prepare)
