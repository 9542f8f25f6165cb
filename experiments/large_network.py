"""How long does a network of 4000 neurons and 320 000 synapses take, forwards and with the gradient?

Question: does a sparse network cost what its synapses and spikes cost, in time and in memory?

Method: the current-based network of Vogels & Abbott as it is used to compare simulators (Brette et al. 2007): 3200
excitatory and 800 inhibitory neurons (tau_m 20 ms, threshold 10 mV above reset, rest 1 mV above threshold, 5 ms of
refractoriness), every pair connected with probability 0.02, exponential currents of 5 and 10 ms, dt 0.1 ms. Differences
to that text: a spike arrives one step later, and no neuron reaches itself. 1 s is simulated in ten calls from random
voltages; the first, which compiles, is not timed. Then the gradient of the mean rate over 20 ms with respect to all
weights. ``Sparse`` memory is that of its arrays, padding included, over that of the dense weights. There is one run, of
one seed: the times of one machine.

Command: python experiments/large_network.py (half a minute; --quick: a smoke run that writes nothing)
"""

import time
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from claims import claim, table, write_claims
from command_line import run_script

import jaxlif as jl
from jaxlif import plotting
from jaxlif.networks import Arriving, Feedback, FeedbackParams, Sparse, connect, pairwise


@dataclass(frozen=True)
class Config:
    """Every number of the experiment."""

    seed: int = 0
    num_neurons: int = 4000
    excitatory: float = 0.8  # of the neurons
    probability: float = 0.02
    weights: tuple[float, float] = (1.62, -9.0)  # mV, of the current times resistance
    tau_syn: tuple[float, float] = (5.0, 10.0)  # ms
    dt: float = 0.1  # ms
    chunk: int = 1000  # steps a call
    chunks: int = 10
    gradient_steps: int = 200


QUICK = Config(num_neurons=400, probability=0.1, chunks=5, gradient_steps=20)


def main(config: Config, write: bool) -> None:
    cell, params, state = make(config)
    state, spikes, seconds = run(config, cell, params, state)
    gradient_seconds = time_gradient(config, cell, params, state)
    rates = 1e3 * spikes.sum(axis=0) / (len(spikes) * config.dt)
    variation = [cv for train in spikes.T if np.isfinite(cv := variation_of(train))]
    dense = 2 * config.num_neurons**2 * params.path.weight.dtype.itemsize
    held = params.path.weight.nbytes + params.path.target.nbytes
    claims = [
        claim("synapses", int((np.asarray(params.path.target) < 2 * config.num_neurons).sum())),
        claim("memory of the synapses over that of dense weights", 100.0 * held / dense, "%"),
        claim("one second of the network", 1e3 / (config.chunk * config.dt) * seconds, "s"),
        claim("gradient over forward, time", gradient_seconds / (seconds * config.gradient_steps / config.chunk)),
        claim("mean rate", rates.mean(), "Hz"),
        claim("mean coefficient of variation of the intervals", np.mean(variation)),
    ]
    print(table(claims))
    if write:
        write_claims("large_network", claims, draw(config, spikes, rates))


def make(config: Config) -> tuple[Feedback, FeedbackParams, tuple]:
    n = config.num_neurons
    first = int(config.excitatory * n)
    keys = jax.random.split(jax.random.key(config.seed))
    target = pairwise(keys[0], n, n, config.probability, self_connections=False)
    # Inhibitory synapses are the second kind: their targets are counted from n on.
    target = np.where(target == n, 2 * n, target + np.where(np.arange(n) < first, 0, n)[:, None])
    path = connect(target, 2 * n, jnp.where(jnp.arange(n) < first, *config.weights))
    neuron = jl.LIFParams(tau_m=20.0, r_m=1.0, v_rest=-49.0, v_th=-50.0, v_reset=-60.0, t_ref=5.0)
    synapse = jl.CurrentParams(tau_syn=jnp.array(config.tau_syn))
    params = FeedbackParams(neuron=jl.SynapticParams(neuron=neuron, synapse=synapse), path=path)
    cell = Feedback(Arriving(jl.Synaptic(jl.LIF(dt=config.dt), jl.ExponentialCurrent()), kinds=2), Sparse(2 * n))
    state = cell.init_state(params, jnp.zeros(2 * n))
    v = jax.random.uniform(keys[1], (n,), minval=-60.0, maxval=-50.0)
    membrane = state.neuron.neuron._replace(v=v)
    return cell, params, state._replace(neuron=state.neuron._replace(neuron=membrane))


@partial(jax.jit, static_argnums=(0, 3))
def advance(cell: Feedback, params: FeedbackParams, state: tuple, steps: int) -> tuple[tuple, jax.Array]:
    """Return the state and the spikes, the only output that is kept."""
    nothing = jnp.zeros((steps, 2 * len(params.path.target)))
    state, output = jl.simulate(cell, params, nothing, state)
    return state, output.spikes.astype(bool)


def run(config: Config, cell: Feedback, params: FeedbackParams, state: tuple) -> tuple[tuple, np.ndarray, float]:
    """Return the last state, the spikes of all calls but the first, and the median time of these."""
    trains, times = [], []
    for _ in range(config.chunks + 1):
        start = time.perf_counter()
        state, spikes = jax.block_until_ready(advance(cell, params, state, config.chunk))
        times.append(time.perf_counter() - start)
        trains.append(np.asarray(spikes))
    return state, np.concatenate(trains[1:]), float(np.median(times[1:]))


def time_gradient(config: Config, cell: Feedback, params: FeedbackParams, state: tuple) -> float:
    def rate(weight):
        nothing = jnp.zeros((config.gradient_steps, 2 * config.num_neurons))
        path = replace(params.path, weight=weight)
        return jnp.mean(jl.simulate(cell, replace(params, path=path), nothing, state)[1].spikes)

    gradient, times = jax.jit(jax.grad(rate)), []
    for _ in range(4):
        start = time.perf_counter()
        jax.block_until_ready(gradient(params.path.weight))
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def variation_of(train: np.ndarray) -> float:
    intervals = np.diff(np.flatnonzero(train))
    return float(intervals.std() / intervals.mean()) if len(intervals) > 2 else float("nan")


def draw(config: Config, spikes: np.ndarray, rates: np.ndarray) -> plt.Figure:
    with plt.rc_context(plotting.STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.6), layout="constrained", width_ratios=[2, 1])
        shown = np.linspace(0, config.num_neurons - 1, 200).astype(int)
        time_ms, which = np.nonzero(spikes[-3000:][:, shown])
        left.plot(config.dt * time_ms, shown[which], ".", markersize=2, color=plotting.PALETTE[0])
        left.axhline(config.excitatory * config.num_neurons, color=plotting.GUIDE, linewidth=0.8)
        left.set(xlabel="time (ms)", ylabel="neuron, inhibitory above the line", title="Every twentieth neuron")
        right.hist(rates, bins=30, color=plotting.PALETTE[0])
        right.set(xlabel="rate (Hz)", ylabel="neurons", title="Rates")
    return figure


if __name__ == "__main__":
    run_script(main, Config(), QUICK, __doc__)
