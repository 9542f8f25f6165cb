"""Do the 95 % intervals of a fitted adaptive neuron contain the truth?

Question: in what share of simulated cells does the interval of each parameter contain the value that made the data?
And does a model whose spikes are shifted in time score nothing?
Method: a neuron with escape noise, two spike-triggered currents, two threshold movements and a threshold that follows
the voltage, four repeats of 20 s of frozen noise at dt = 0.5 ms, its voltage measured with an Ornstein-Uhlenbeck error
(1 mV, 10 ms). ``fit_recording`` fits all of it; every seed has its own noise. Of exact intervals 50 seeds put one in
nine outside 90 to 99 % by chance: 200 seeds say more. Printed, not claimed: the median widths.
Shifted spikes: the coincidence factor of the recorded trains with themselves, shifted by 10 s.
Command: python experiments/gif_coverage.py (--quick: two seeds, nothing written; --keep FOLDER: leave every seed's
intervals there, and take those that are there already)
"""

import argparse
import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
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
from jaxlif.fitting.bounds import named_leaves, standard_name
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


def main(config: Config, write: bool, keep: Path | None) -> None:
    found = [one_seed(config, seed, keep) for seed in tqdm(range(config.seeds), disable=not sys.stderr.isatty())]
    rows = table_rows(config, found)
    print(claims.table(rows))
    print(claims.table(width(name, np.array([f["intervals"][name] for f in found])) for name in holds(found)))
    if write:
        claims.write_claims("gif_coverage", rows, draw(found), command="python experiments/gif_coverage.py")


def one_seed(config: Config, seed: int, keep: Path | None) -> dict[str, Any]:
    """Return the intervals of a seed by name, and the score of its shifted spikes."""
    kept = None if keep is None else keep / f"{seed}.json"
    if kept is not None and kept.exists():
        return json.loads(kept.read_text())
    recording = simulate(config, seed)
    result = jl.fit_recording(recording, "gif", electrode=None, coupling=True, window=(0.0, config.duration), seed=seed)
    found = {"intervals": result.uncertainty.intervals, "shifted": abs(shifted_score(recording))}
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(found))
    return found


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


def holds(found: list[dict[str, Any]]) -> dict[str, list[bool]]:
    """Return by name in which seeds the interval holds the truth."""
    truth = named_leaves(TRUTH)
    return {
        name: [f["intervals"][name][0] <= float(truth[name]) <= f["intervals"][name][1] for f in found]
        for name in found[0]["intervals"]
    }


def shifted_score(recording: jl.Recording) -> float:
    """Score the spikes against themselves, rolled by half the duration."""
    assert recording.spikes is not None
    rolled = np.roll(recording.spikes, recording.num_steps // 2, axis=1)
    data, model = (spike_times(x.T, recording.dt) for x in (recording.spikes, rolled))
    return float(mean_coincidence_factor(data, model, duration=recording.duration, delta=4.0))


def table_rows(config: Config, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    claim = partial(claims.claim, seeds=len(found))
    shares = {name: 100.0 * float(np.mean(hits)) for name, hits in holds(found).items()}
    what = "share of 95 % intervals that contain the truth"
    rows = [
        claim(f"lowest {what}", min(shares.values()), "%", ">= 90"),
        claim(f"highest {what}", max(shares.values()), "%", "<= 99"),
        claim(f"mean {what}", float(np.mean(list(shares.values()))), "%"),
        *(claim(f"{name}: {what}", share, "%") for name, share in shares.items()),
    ]
    mean = float(np.mean([f["shifted"] for f in found]))
    return [*rows, claim("spikes shifted by half the duration: mean |coincidence factor|", mean, "", "< 0.02")]


def width(name: str, ends: np.ndarray) -> dict[str, Any]:
    """Return the median width of intervals [seeds, 2]; a factor where all are positive."""
    low, high = ends.T
    if (low > 0.0).all():
        return claims.claim(f"{name}: median factor between the ends of its interval", float(np.median(high / low)))
    return claims.claim(f"{name}: median width of its interval", float(np.median(high - low)), standard_name(name)[1])


def draw(found: list[dict[str, Any]]) -> plt.Figure:
    with plt.rc_context(plotting.STYLE):
        figure, ax = plt.subplots(figsize=(6.0, 4.5), layout="constrained")
        inside = holds(found)
        names = list(inside)[::-1]
        ax.plot([100.0 * np.mean(inside[name]) for name in names], names, "o")
        ax.axvspan(90.0, 99.0, color="0.9")
        ax.axvline(95.0, color="0.6")
        ax.set(xlabel="95 % intervals that contain the truth (%)", xlim=(50.0, 102.0))
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run that writes nothing")
    parser.add_argument(
        "--seeds", type=int, default=Config.seeds, help="how many; with others than 50 nothing is written"
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where every seed's intervals are left")
    given = parser.parse_args()
    config = Config(seeds=2 if given.quick else given.seeds)
    main(config, config == Config(), given.keep)
