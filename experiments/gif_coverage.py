"""Do the 95 % intervals of a fitted adaptive neuron contain the truth?

Question: in what share of simulated cells does the interval of each parameter contain the value that made the data?
And does a model whose spikes are shifted in time score nothing?
Method: a neuron with escape noise, two spike-triggered currents, two threshold movements and a threshold that follows
the voltage, four repeats of 20 s of frozen noise at dt = 0.5 ms, its voltage measured with an Ornstein-Uhlenbeck error
(1 mV, 10 ms). ``fit_recording`` fits all of it; every seed has its own noise. A jump is compared with what is left of
the true one at the end of the refractory period, which is what the data determine. Shifted spikes: the coincidence
factor of the recorded trains with themselves, shifted by 10 s.
Command: python experiments/gif_coverage.py (--quick: two seeds, nothing written)
"""

import argparse
import sys
from dataclasses import dataclass
from typing import Any

import claims
import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

import jaxlif as jl
from jaxlif import plotting
from jaxlif.fitting.bounds import named_leaves
from jaxlif.spiketrains import mean_coincidence_factor, spike_times

TRUTH = jl.AdaptiveLIFParams(
    tau_m=20.0, r_m=0.1, v_rest=-65.0, v_th=-50.0, v_reset=-60.0, t_ref=4.0, delta_v=1.0,
    eta=(150.0, 20.0), tau_eta=(8.0, 100.0), gamma=(8.0, 2.0), tau_gamma=(10.0, 120.0),
    coupling=jl.VoltageCoupling(b=0.6, tau=10.0, v_i=-56.0, k=2.0),
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Every number of the experiment."""

    seeds: int = 50
    sweeps: int = 4
    duration: float = 20_000.0  # ms
    dt: float = 0.5  # ms
    mean: float = 170.0  # pA
    sd: float = 120.0  # pA
    error: tuple[float, float] = (1.0, 10.0)  # mV and ms of the voltage's error


def main(config: Config, write: bool) -> None:
    inside: dict[str, list[bool]] = {}
    shifted = []
    for seed in tqdm(range(config.seeds), disable=not sys.stderr.isatty()):
        recording = simulate(config, seed)
        result = jl.fit_recording(
            recording, "gif", electrode=None, coupling=True, train=(0.0, config.duration), seed=seed
        )
        for name, (low, high) in result.intervals.items():
            factor = left(result.params, name)
            inside.setdefault(name, []).append(low * factor <= true_value(name) <= high * factor)
        shifted.append(abs(shifted_score(recording)))
    rows = table_rows(config, inside, shifted)
    print(claims.table(rows))
    if write:
        claims.write_claims("gif_coverage", rows, draw(inside))


def simulate(config: Config, seed: int) -> jl.Recording:
    """Simulate one cell's recording."""
    keys = jax.random.split(jax.random.key(seed), 3)
    noise = jl.stimulus.ornstein_uhlenbeck(keys[0], 0.0, config.sd, 4.0, config.duration, config.dt)
    inputs = jl.escape_inputs(keys[1], jnp.tile(config.mean + noise[:, None], (1, config.sweeps)))
    _, output = jl.simulate(jl.EscapeNoise(jl.AdaptiveLIF(dt=config.dt)), TRUTH, inputs)
    sd, tau = config.error
    error = jax.vmap(lambda k: jl.stimulus.ornstein_uhlenbeck(k, 0.0, sd, tau, config.duration, config.dt))
    spikes = np.asarray(output.spikes).T > 0
    voltage = np.where(
        spikes, 30.0, np.asarray(output.v).T + np.asarray(error(jax.random.split(keys[2], config.sweeps)))
    )
    return jl.Recording(current=np.asarray(inputs.input).T, voltage=voltage, dt=config.dt, spikes=spikes)


def left(params: jl.AdaptiveLIFParams, name: str) -> float:
    """Return what share of a jump is left at the end of the refractory period, 1 for other parameters."""
    kind, _, index = name.partition(".")
    if kind not in ("eta", "gamma"):
        return 1.0
    return float(np.exp(-params.t_ref / getattr(params, f"tau_{kind}")[int(index)]))


def true_value(name: str) -> float:
    return float(named_leaves(TRUTH)[name]) * left(TRUTH, name)


def shifted_score(recording: jl.Recording) -> float:
    """Score the spikes against themselves, rolled by half the duration."""
    assert recording.spikes is not None
    rolled = np.roll(recording.spikes, recording.num_steps // 2, axis=1)
    data, model = (spike_times(x.T, recording.dt) for x in (recording.spikes, rolled))
    return float(mean_coincidence_factor(data, model, duration=recording.duration, delta=4.0))


def table_rows(config: Config, inside: dict[str, list[bool]], shifted: list[float]) -> list[dict[str, Any]]:
    shares = {name: 100.0 * float(np.mean(hits)) for name, hits in inside.items()}
    rows = [claims.claim("lowest share of intervals that contain the truth", min(shares.values()), "%", ">= 90")]
    rows += [claims.claim("highest share of intervals that contain the truth", max(shares.values()), "%", "<= 99")]
    rows += [
        claims.claim(f"{name}: share of 95 % intervals that contain the truth", x, "%") for name, x in shares.items()
    ]
    return [
        *rows,
        claims.claim("spikes shifted by half the duration: mean |coincidence factor|", np.mean(shifted), "", "< 0.02"),
    ]


def draw(inside: dict[str, list[bool]]) -> plt.Figure:
    with plt.rc_context(plotting.STYLE):
        figure, ax = plt.subplots(figsize=(6.0, 4.5), layout="constrained")
        names = list(inside)[::-1]
        ax.plot([100.0 * np.mean(inside[name]) for name in names], names, "o")
        ax.axvspan(90.0, 99.0, color="0.9")
        ax.axvline(95.0, color="0.6")
        ax.set(xlabel="95 % intervals that contain the truth (%)", xlim=(50.0, 102.0))
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run that writes nothing")
    quick = parser.parse_args().quick
    main(Config(seeds=2) if quick else Config(), write=not quick)
