"""Starting values of a resonant network: time constants spread out, and a drive of a chosen size."""

import jax
import jax.numpy as jnp

import jaxlif as jl
from jaxlif.networks import DenseParams


def log_uniform(key: jax.Array, low: float, high: float, num: int) -> jax.Array:
    """Draw exp(u) with u uniform between log low and log high: as many in each octave."""
    return jnp.exp(jax.random.uniform(key, (num,), minval=jnp.log(low), maxval=jnp.log(high)))


def init_resonant(
    key: jax.Array,
    num_neurons: int,
    *,
    tau_m: tuple[float, float] = (2.0, 20.0),
    tau_w: tuple[float, float] = (30.0, 600.0),
    a: float = 120.0,
    b: float = 240.0,
    dt: float = 1.0,
) -> jl.ResonantLIFParams:
    r"""Draw normalised resonant neurons, each with its own time constants (ms, log-uniform) and adaptation.

    The conductance is a sigmoid(x) and the jump b (1 - exp(-dt/tau_w)) sigmoid(y) with x and y normal: a spike in every
    step would drive the adaptation current to b sigmoid(y).

    Source: Baronig et al. 2025, doi:10.1038/s41467-025-60878-z (the scale of a and b).
    """
    keys = jax.random.split(key, 4)
    slow = log_uniform(keys[1], *tau_w, num_neurons)
    conductance, jump = (jax.nn.sigmoid(jax.random.normal(k, (num_neurons,))) for k in keys[2:])
    return jl.ResonantLIFParams(
        tau_m=log_uniform(keys[0], *tau_m, num_neurons),
        r_m=1.0,
        v_rest=0.0,
        v_th=1.0,
        v_reset=0.0,
        t_ref=0.0,
        a=a * conductance,
        tau_w=slow,
        b=-b * jnp.expm1(-dt / slow) * jump,
    )


def scale_to_drive(projection: DenseParams, inputs: jax.Array, *, tau_m, dt: float, drive: float = 1.0) -> DenseParams:
    """Scale each neuron's input weights so that its voltage would fluctuate by ``drive`` thresholds.

    Each column is divided by the standard deviation, over samples and time, of the voltage that the inputs
    [samples, T, num_in] cause in a passive membrane of the neuron's time constant, and multiplied by ``drive``.
    """
    membrane, params = jl.LeakyIntegrator(dt), jl.LeakyParams(tau_m=tau_m)
    currents = jnp.asarray(inputs, projection.weight.dtype) @ projection.weight
    _, output = jax.vmap(lambda x: jl.simulate(membrane, params, x))(currents)
    sd = output.v.std(axis=(0, 1))
    return DenseParams(weight=(drive / sd)[None, :] * projection.weight, bias=projection.bias)


def gain_to_drive(*, tau_m, dt: float, rate: float, drive: float = 1.0) -> jax.Array:
    """Return the gain of a weight with which independent spikes make the voltage fluctuate by ``drive`` thresholds.

    Spikes of probability q in a step through weights N(0, g^2/n) give a passive membrane, which keeps
    alpha = exp(-dt/tau_m) of its voltage in a step, the mean square g^2 q (1 - alpha) / (1 + alpha).
    """
    # (1 - alpha) / (1 + alpha) = tanh(dt / 2 tau)
    return drive / jnp.sqrt(rate * jnp.tanh(0.5 * dt / jnp.asarray(tau_m)))
