"""When does shunting inhibition divide, and when does it subtract?

Question: a synapse that reverses at rest moves nothing by itself. By how much does it lower an excitatory potential,
and what does it do to the f-I curve: is that divided as the voltage is, or shifted?

Method: (a) excitatory conductances of 2 nS (0 mV, 5 ms) at 20, 60, 64, 68, 72 and 120 ms reach a membrane of 250 pF
and 25 nS, and inhibitory ones of 0 to 40 nS (at rest, 10 ms) at 15, 58, 61, 64, 67, 70 and 122 ms; the peak of the
voltage is read at dt = 0.01 ms. (b) Its steady voltage under constant conductances, in closed form. (c) The f-I curve
of a spiking neuron under a constant shunt, without noise, in closed form. (d) The same neuron, simulated, under a
background of excitatory and inhibitory Poisson conductances in balance, whose rates are multiplied by 0.5 to 3: shunt
and noise grow together. The gain is the slope between 10 and 40 Hz, by interpolation.

Command: python experiments/shunting.py (half a minute; --quick: a smoke run that writes nothing)
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from claims import claim, table, write_claims
from command_line import run_script

import jaxlif as jl
from jaxlif import plotting, theory

MEMBRANE = jl.LIFParams.from_circuit(c_m=250.0, g_l=25.0, v_rest=-70.0, v_th=1e3, v_reset=-70.0)
NEURON = jl.LIFParams(tau_m=20.0, r_m=0.1, v_rest=-70.0, v_th=-55.0, v_reset=-65.0, t_ref=5.0)
EXCITED, INHIBITED = (20.0, 60.0, 64.0, 68.0, 72.0, 120.0), (15.0, 58.0, 61.0, 64.0, 67.0, 70.0, 122.0)
REDUCTIONS = {5.0: 19.3, 15.0: 43.0, 40.0: 67.8}  # nS, %


@dataclass(frozen=True)
class Config:
    """Every number that is not in the text above."""

    shunts: tuple[float, ...] = (0.0, 5.0, 10.0)  # nS, of (c)
    weight: tuple[float, float] = (2.0, 6.0)  # nS, of the background, excitatory and inhibitory
    rate: tuple[float, float] = (1000.0, 700.0)  # Hz
    tau_syn: tuple[float, float] = (3.0, 6.0)  # ms
    e_rev: tuple[float, float] = (0.0, -75.0)  # mV
    levels: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0)
    trials: int = 40
    duration: float = 2200.0  # ms, of which the first 200 do not count
    dt: float = 0.1  # ms
    seed: int = 0


def main(config: Config, write: bool) -> None:
    weights = np.array([0.0, *REDUCTIONS])
    traces = potentials(weights)
    alone = potentials(weights, excitation=0.0)
    current = np.arange(0.0, 601.0, 25.0)
    shunted = {g: np.asarray(theory.shunted_rate(NEURON, current, g)) for g in config.shunts}
    simulated = {k: simulated_rate(config, k, current) for k in config.levels}
    claims = [claim("inhibition alone: largest movement of the voltage", abs(alone + 70.0).max(), "mV", "<= 0")]
    peak = traces.max(axis=0) + 70.0
    for found, (g, reduction) in zip(100.0 * (1.0 - peak[1:] / peak[0]), REDUCTIONS.items(), strict=True):
        claims.append(claim(f"{g:g} nS: reduction of the peak", found, "%"))
        claims.append(claim(f"{g:g} nS: its distance from {reduction} %", abs(found - reduction), "%", "<= 0.1"))
    claims += curve_claims(config, current, shunted, simulated)
    print(table(claims))
    if write:
        write_claims("shunting", claims, draw(traces, weights, current, shunted, simulated))


def potentials(weights: np.ndarray, excitation: float = 2.0, dt: float = 0.01, duration: float = 160.0) -> np.ndarray:
    """Return the voltage [T, N] under inhibition of each weight [N], nS."""
    arrivals = np.zeros((round(duration / dt), 2, weights.size))
    for kind, (times, size) in enumerate(((EXCITED, excitation), (INHIBITED, weights))):
        for t in times:
            arrivals[round(t / dt), kind] += size
    synapse = jl.ConductanceParams(tau_syn=jnp.array([5.0, 10.0]), e_rev=jnp.array([0.0, -70.0]))
    cell, params = jl.Synaptic(jl.LIF(dt=dt), jl.Conductance()), jl.SynapticParams(neuron=MEMBRANE, synapse=synapse)
    drive = jl.Drive(jnp.asarray(arrivals), jnp.zeros((len(arrivals), weights.size)))
    return np.asarray(jl.simulate(cell, params, drive)[1].v)


def simulated_rate(config: Config, level: float, current: np.ndarray) -> np.ndarray:
    """Return the rates, Hz, of simulated trials."""
    steps, size = round(config.duration / config.dt), current.size * config.trials
    rng = np.random.default_rng(config.seed)
    events = [rng.poisson(level * r * config.dt / 1000.0, (steps, size)).astype(np.float32) for r in config.rate]
    arrivals = jnp.stack([w * jnp.asarray(x) for w, x in zip(config.weight, events, strict=True)], axis=1)
    synapse = jl.ConductanceParams(tau_syn=jnp.asarray(config.tau_syn), e_rev=jnp.asarray(config.e_rev))
    drive = jl.Drive(
        arrivals, jnp.broadcast_to(jnp.repeat(jnp.asarray(current, jnp.float32), config.trials), (steps, size))
    )
    cell = jl.Synaptic(jl.LIF(dt=config.dt), jl.Conductance())
    spikes = jl.simulate(cell, jl.SynapticParams(neuron=NEURON, synapse=synapse), drive)[1].spikes
    late = np.asarray(spikes[round(200.0 / config.dt) :].mean(axis=0)) / config.dt * 1000.0
    return late.reshape(current.size, config.trials).mean(axis=1)


def between(current: np.ndarray, rate: np.ndarray) -> tuple[float, float]:
    """Return the current, pA, for 10 Hz, and the gain, Hz/pA, from there to 40 Hz."""
    start, end = np.interp([10.0, 40.0], rate, current)
    return float(start), float(30.0 / (end - start))


def curve_claims(config: Config, current: np.ndarray, shunted: dict, simulated: dict) -> list[dict]:
    """Say by how much the curves are shifted and divided."""
    fine = np.linspace(100.0, 1e3, 100_000)
    first, last = (
        between(fine, np.asarray(theory.shunted_rate(NEURON, fine, g)))
        for g in config.shunts[:: len(config.shunts) - 1]
    )
    low, high = (between(current, simulated[k]) for k in (config.levels[0], config.levels[-1]))
    g = config.shunts[-1]
    return [
        claim(f"without noise, {g:g} nS: shift of the rheobase", rheobase(g) - rheobase(0.0), "pA"),
        claim(f"without noise, {g:g} nS: shift of the current for 10 Hz", last[0] - first[0], "pA"),
        claim(f"without noise, {g:g} nS: gain over that of 0 nS", last[1] / first[1], "", ">= 1"),
        claim(f"background x{config.levels[-1]:g}: shift of the current for 10 Hz", high[0] - low[0], "pA", "<= 30"),
        claim(
            f"background x{config.levels[-1]:g}: gain over that of x{config.levels[0]:g}",
            high[1] / low[1],
            "",
            "<= 0.6",
        ),
    ]


def rheobase(g: float) -> float:
    return float(theory.rheobase(theory.with_conductances(NEURON, g, NEURON.v_rest)))


def draw(traces, weights, current, shunted, simulated) -> plt.Figure:
    """Draw the four parts."""
    with plt.rc_context(plotting.STYLE | {"figure.figsize": (8.0, 6.0)}):
        figure, ((a, b), (c, d)) = plt.subplots(2, 2)
    for g, v in zip(weights, traces.T, strict=True):
        plotting.trace(0.01 * np.arange(1, v.size + 1), v, label=f"{g:g} nS", ax=a)
    a.set_title("(a) shunting inhibition lowers the peak")
    g_e = np.linspace(0.0, 10.0, 51)
    steady = jax.vmap(
        lambda e, i: theory.with_conductances(MEMBRANE, jnp.stack([e, i]), jnp.array([0.0, -70.0])).v_rest, (0, None)
    )
    for g in weights:
        b.plot(g_e, steady(jnp.asarray(g_e), g), label=f"{g:g} nS")
    b.set(xlabel="excitatory conductance (nS)", ylabel="steady voltage (mV)", title="(b) it divides the voltage")
    b.legend(frameon=False)
    fine = np.linspace(100.0, 600.0, 501)
    for g in shunted:
        c.plot(fine, theory.shunted_rate(NEURON, fine, g), label=f"{g:g} nS")
    c.set(xlabel="current (pA)", ylabel="firing rate (Hz)", title="(c) without noise it shifts the f-I curve")
    c.legend(frameon=False)
    for k, rate in simulated.items():
        d.plot(current, rate, "o-", label=f"x{k:g}")
    d.set(xlabel="current (pA)", ylabel="firing rate (Hz)", title="(d) a noisy background divides it")
    d.legend(title="background", frameon=False)
    return figure


QUICK = replace(Config(), trials=2, duration=400.0)

if __name__ == "__main__":
    run_script(main, Config(), QUICK, __doc__)
