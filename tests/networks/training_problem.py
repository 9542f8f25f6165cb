"""The problems that the tests of training share, and processes of their own to run them in."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxlif as jl
from jaxlif.networks import Dense, Recurrent, Sequential, cross_entropy, init_dense, init_recurrent
from jaxlif.networks.encoders import rate_code
from jaxlif.networks.training import train

ROOT = Path(__file__).resolve().parents[2]
NETWORK = Sequential((Dense(), Recurrent(jl.LIF(dt=1.0)), Dense(), jl.LeakyIntegrator(dt=1.0)))
SAMPLES, IN, N, OUT, T, B = 45, 6, 8, 3, 12, 8
BOUNDS = {"*.weight": jl.REAL, "*.bias": jl.REAL, "*.neuron.tau_m": (2.0, 100.0)}
KEY = jax.random.key(7)


def make_params():
    keys = jax.random.split(jax.random.key(1), 3)
    hidden = init_dense(keys[0], IN, N, gain=12.0), init_recurrent(keys[1], N, gain=0.5)
    return (*hidden, init_dense(keys[2], N, OUT, gain=6.0), jl.LeakyParams(tau_m=20.0))


def make_data():
    images, noise = (jax.random.uniform(key, (SAMPLES, IN)) for key in jax.random.split(jax.random.key(2)))
    return {"image": images, "label": jnp.argmax(images[:, :OUT] + 0.1 * noise[:, :OUT], axis=1)}


def logits_of(params, batch, key):
    def run(image, key):
        return jl.simulate(NETWORK, params, rate_code(key, image, T))[1]

    output = jax.vmap(run)(batch["image"], jax.random.split(key, len(batch["label"])))
    return output.output.v.mean(axis=1), output.layers[1].spikes.mean()


def loss(params, batch, key):
    logits, rate = logits_of(params, batch, key)
    return cross_entropy(logits, batch["label"]), {"rate": rate}


OPTIMIZER = optax.adamw(0.02)


def go(epochs=4, params=None, data=None, **options):
    options = {"optimizer": OPTIMIZER, "batch_size": B, "key": KEY} | options
    return train(loss, params or make_params(), BOUNDS, data or make_data(), epochs=epochs, **options)


# A problem without neurons where speed matters more than spikes.
LINE = {"x": jnp.linspace(-1.0, 1.0, 20), "y": 3.0 * jnp.linspace(-1.0, 1.0, 20) + 0.5}
LINE_PARAMS = {"w": jnp.asarray(0.0), "c": jnp.asarray(0.0)}
FREE = {"w": (-9.0, 9.0), "c": jl.REAL}
SGD = optax.sgd(0.1)


def line_loss(params, batch, key):
    return jnp.mean((params["w"] * batch["x"] + params["c"] - batch["y"]) ** 2)


def fit_line(epochs=3, loss=line_loss, params=LINE_PARAMS, data=LINE, bounds=FREE, **options):
    options = {"optimizer": SGD, "batch_size": 5, "key": KEY} | options
    return train(loss, params, bounds, data, epochs=epochs, **options)


def tree_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def same(a, b):
    tree_equal((a.params, a.last_params, a.history), (b.params, b.last_params, b.history))
    assert a.best_epoch == b.best_epoch


# Equal but for the order of sums in float64; Adam divides by the root of small gradients.
ROUNDING = {"rtol": 1e-8, "atol": 1e-10}


def tree_close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **ROUNDING), a, b)


@contextmanager
def running(module, code, first="", **env):
    """Run code in a process of its own, with a test module as ``t``; it ends with the block at the latest."""
    settings = f"import jax; jax.config.update('jax_enable_x64', True); {first}"
    settings += f"from tests.networks import {module} as t; "
    with subprocess.Popen([sys.executable, "-W", "error", "-c", settings + code], cwd=ROOT, env=os.environ | env,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def finish(process, timeout=300):
    text, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, text
    return text
