"""The gradient audit on a network of every kind of layer that has no spikes: there all three gradients must agree."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxlif as jl
from jaxlif.networks import (
    Conv1D,
    Delayed,
    Flatten,
    Sequential,
    Sparse,
    fixed_in_degree,
    init_conv,
    init_delays,
    init_sparse,
)


def test_convolution_delays_and_sparse_weights_are_audited_by_layer():
    """Passive, with a smooth input: the loss is smooth in every weight and delay, the gradient its slope."""
    keys = jax.random.split(jax.random.key(0), 4)
    layers = (Conv1D(), Flatten(), Delayed(1.0, 8.0), Sparse(4), jl.LeakyIntegrator(dt=1.0))
    params = (
        init_conv(keys[0], 1, 2, (3,)),
        None,
        init_delays(keys[1], 12, max_delay=7.0),
        init_sparse(keys[2], fixed_in_degree(keys[3], 12, 4, 5), 4),
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
