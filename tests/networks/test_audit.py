"""The gradient audit on a network of every kind of layer that has no spikes: there all three gradients must agree."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxlif as jl
from jaxlif.networks import Conv, Delayed, DelayParams, Flatten, Sequential, Sparse, connect, init_dense, pairwise


def test_convolution_delays_and_sparse_weights_are_audited_by_layer():
    """Passive, with a smooth input: the loss is smooth in every weight and delay, the gradient its slope."""
    keys = jax.random.split(jax.random.key(0), 4)
    layers = (Conv(), Flatten(), Delayed(1.0, 8.0), Sparse(4), jl.LeakyIntegrator(dt=1.0))
    params = (
        init_dense(keys[0], 1, 2, kernel=(3,)),
        None,
        DelayParams(delay=jax.random.uniform(keys[1], (12,), minval=0.1, maxval=6.9)),
        connect(pairwise(keys[3], 12, 4, 0.4), 4, jax.random.normal(keys[2], (12,))),
        jl.LeakyParams(tau_m=5.0),
    )
    inputs = np.sin(0.2 * np.arange(60.0)[:, None, None] + np.arange(6.0)) ** 2
    names = ("0.weight", "2.delay", "3.weight", "4.tau_m")
    audit = jl.audit_gradient(
        lambda output: jnp.mean(output.output.v**2),
        Sequential(layers),
        params,
        inputs,
        key=jax.random.key(1),
        names=names,
        samples=4096,
    )
    assert audit.verdict.startswith("trustworthy")
    for name in names:
        # Five standard errors of the smoothed slope, and a per cent for what the smoothing itself changes.
        size = np.linalg.norm(audit.smoothed[name])
        assert size > 1e-3, name
        assert np.linalg.norm(audit.cell[name] - audit.smoothed[name]) < (
            5.0 * np.linalg.norm(audit.error[name]) + 0.01 * size
        ), name
        assert np.linalg.norm(audit.error[name]) < 0.5 * size, name  # the comparison says something
