"""How the sweeps of a recording differ: where the cell rests in each, and what reaches it of the current.

A cell changes between recordings. With its resting potential tied to what was measured before each stimulus, slow
currents cannot take its place, and the model means the same in another regime.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxlif.fitting.data import Drift
from jaxlif.fitting.joint_likelihood import ForcedSweeps, forced_adaptive
from jaxlif.neurons.adaptive import AdaptiveLIFParams


def estimate_drift(params: AdaptiveLIFParams, sweeps: list[ForcedSweeps], dt: float) -> Drift:
    """Estimate the terms of each sweep by least squares on its voltage, in which both are linear.

    They come on top of what the sweeps hold already, with a mean offset of 0 and a mean gain of 1: a common part
    belongs to the parameters.

    Args:
        params: the neuron.
        sweeps: current, voltage and spikes, in parts of one shape.
        dt: sampling interval, ms.

    Source: Pozzorini et al. 2015, doi:10.1371/journal.pcbi.1004275 (the voltage of forced spikes is linear).
    """
    rows = np.concatenate([np.asarray(_terms(params, part, dt)) for part in sweeps])
    counted = [part.compared.reshape(-1, len(part.start)).any(axis=0) for part in sweeps]
    rows = rows[np.concatenate(counted)]
    return Drift(rows[:, 0] - rows[:, 0].mean(), rows[:, 1] / rows[:, 1].mean())


@jax.jit(static_argnums=2)
def _terms(params: AdaptiveLIFParams, part: ForcedSweeps, dt: float) -> jax.Array:
    """Return offset and gain [S, 2] of the sweeps of a part."""

    def voltage(offset, gain):
        moved = part._replace(current=gain * part.current, offset=part.offset + offset)
        return forced_adaptive(params, moved, dt)[0]

    one, zero = jnp.ones((), part.voltage.dtype), jnp.zeros((), part.voltage.dtype)
    base = voltage(zero, one)
    # Both are linear: a difference of any size is the derivative.
    slopes = jnp.stack([voltage(one, one) - base, voltage(zero, 2.0 * one) - base])
    columns, compared, error = (
        x.reshape(*x.shape[:-2], -1, len(part.start)) for x in (slopes, part.compared, part.voltage - base)
    )
    gram = jnp.einsum("ins,jns,ns->sij", columns, columns, compared)
    projection = jnp.einsum("ins,ns->si", columns, compared * error)
    # A sweep that only fills up its part is compared nowhere; a millionth of a sample makes it solvable.
    solution = jnp.linalg.solve(gram + 1e-6 * jnp.eye(2, dtype=gram.dtype)[None], projection[..., None])[..., 0]
    return solution.at[:, 1].add(1.0)
