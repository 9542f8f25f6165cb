"""The neuron of these tests."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxlif import LIFParams

EXPECTED = np.load(Path(__file__).parent.parent / "data" / "theory.npz")  # its README says where the numbers come from
CELL = LIFParams(tau_m=10.0, r_m=0.1, v_rest=-70.0, v_th=-55.0, v_reset=-65.0, t_ref=5.0)


def in_arrays(params, dtype):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)


def tolerance(dtype):
    """Relative rounding after a few operations on voltages of -70 mV, a few mV apart."""
    return {"float64": 1e-12, "float32": 1e-4}[dtype]


def differences(function, x, eps):
    """Return the gradient [..., K] at x [K] by differences of fourth order, each as wide as its ``eps`` [K]."""

    def slope(step, width):
        near, far = (function(x + k * step) - function(x - k * step) for k in (1, 2))
        return (8.0 * near - far) / (12.0 * width)

    return np.stack([slope(*each) for each in zip(np.diag(eps), eps, strict=True)], axis=-1)
