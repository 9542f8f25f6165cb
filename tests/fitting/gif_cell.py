"""A neuron with escape noise and a threshold that follows the voltage, and recordings of it."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxlif as jl

DT = 0.5
TRUTH = jl.AdaptiveLIFParams(
    tau_m=20.0, r_m=0.1, v_rest=-65.0, v_th=-50.0, v_reset=-60.0, t_ref=4.0, delta_v=1.0,
    eta=(40.0, 15.0), tau_eta=(6.0, 80.0), gamma=(4.0,), tau_gamma=(50.0,),
    coupling=jl.VoltageCoupling(b=0.6, tau=10.0, v_i=-56.0, k=2.0),
)  # fmt: skip


def recorded(params, seed=0, sweeps=4, duration=20_000.0):
    """Return repeats of one frozen noise with escape noise, spikes drawn to 30 mV, and 0.3 mV of measurement noise."""
    key = jax.random.key(seed)
    current = 170.0 + jl.stimulus.ornstein_uhlenbeck(key, 0.0, 120.0, 4.0, duration, DT)
    inputs = jl.escape_inputs(jax.random.key(seed + 1), jnp.tile(current[:, None], (1, sweeps)))
    _, output = jl.simulate(jl.EscapeNoise(jl.AdaptiveLIF(dt=DT)), params, inputs)
    spikes = np.asarray(output.spikes).T > 0
    noise = 0.3 * np.random.default_rng(seed).standard_normal(spikes.shape)
    voltage = np.where(spikes, 30.0, np.asarray(output.v).T + noise)
    return jl.Recording(current=np.tile(np.asarray(current), (sweeps, 1)), voltage=voltage, dt=DT, spikes=spikes)
