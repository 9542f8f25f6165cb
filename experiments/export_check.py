"""Does an exported neuron do in NEST and Brian2 what it does here?

Question: are the spikes of an exported neuron the same in the program it is exported to?
Method: noise drives a plain and an adaptive neuron here and, through the scripts of ``jaxlif.interop``, in NEST and
Brian2, each in its own environment. Without noise of their own the spikes must be the same, one by one: NEST runs the
plain neuron, as ``iaf_psc_delta`` and ``iaf_psc_exp``, Brian2 also the adaptive one with voltage coupling and
subthreshold adaptation. Times are those of jaxlif, where a spike is at the end of its step; Brian2 labels it with the
start, and its script adds the step. With escape noise (``gif_psc_exp`` in NEST) every program draws its own numbers:
compared are the mean rates over many copies of the neuron, in standard errors of their difference, for the whole trace
and for each of its windows; the largest of ten independent normal numbers is above 3.5 once in 200 times.
Command: python experiments/export_check.py (--quick: a smoke run that writes nothing), after
experiments/peers_nest_brian2.sh; a program that is not there is left out, with a line that says so.
"""

import json
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import claims
import jax
import numpy as np
from command_line import run_script

import jaxlif as jl
from jaxlif.interop import to_brian2, to_nest, to_script

PEERS = Path(__file__).resolve().parents[1] / ".cache" / "peers"
TIMEOUT = 900.0  # s


@dataclass(frozen=True)
class Config:
    """What is simulated."""

    dt: float = 0.1  # ms
    duration: float = 10_000.0  # ms, without noise
    noisy_duration: float = 2000.0  # ms, with it
    copies: int = 500  # of the noisy neuron
    windows: int = 10
    mean: float = 160.0  # pA
    sd: float = 80.0  # pA
    tau: float = 5.0  # ms
    seed: int = 0


QUICK = Config(duration=1000.0, noisy_duration=500.0, copies=50)

LIF = jl.LIFParams(t_ref=2.0)
GIF = jl.AdaptiveLIFParams(
    **vars(LIF), eta=(40.0, 5.0), tau_eta=(20.0, 150.0), gamma=(3.0,), tau_gamma=(30.0,), delta_v=2.0, lambda_0=0.5
)
FULL = replace(GIF, a=(1.0,), tau_a=(120.0,), coupling=jl.VoltageCoupling(b=0.4, v_i=-62.0))


def main(config: Config, write: bool) -> None:
    there = [peer for peer in ("nest", "brian2") if ready(peer)]
    rows = [row for peer in there for row in same_spikes(config, peer)]
    rows += noisy_rates(config, there) if there else []
    print(claims.table(rows))
    if write and rows:
        claims.write_claims("export_check", rows)


def ready(peer: str) -> bool:
    """Say whether a program is installed, and if not, print why."""
    if (PEERS / peer / ".ready").is_file():
        return True
    reason = PEERS / f"{peer}.failed"
    print(f"{peer}: {reason.read_text().strip() if reason.is_file() else 'not installed'} (peers_nest_brian2.sh)")
    return False


def run(peer: str, script: str) -> dict[str, list[float]]:
    """Run a script in a program's own environment; return its spikes' times, ms, and neurons."""
    python = str(PEERS / peer / "bin" / "python")
    done = subprocess.run([python, "-"], input=script, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode:
        raise SystemExit(f"{peer} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def noise(config: Config, duration: float) -> np.ndarray:
    key = jax.random.key(config.seed)
    return np.asarray(jl.stimulus.ornstein_uhlenbeck(key, config.mean, config.sd, config.tau, duration, config.dt))


def same_spikes(config: Config, peer: str) -> list[dict[str, Any]]:
    """Compare spike by spike the neurons that have no noise of their own."""
    current, dt, rows = noise(config, config.duration), config.dt, []
    for name, cell, params, script in exports(config, peer, current):
        _, output = jl.simulate(cell, params, current)
        ours, theirs = jl.spiketrains.spike_times(output.spikes, dt), np.array(run(peer, script)["times"])
        rows += [
            claims.claim(f"{peer}, {name}: spikes", len(theirs)),
            claims.claim(f"{peer}, {name}: spikes that one has alone", alone(ours, theirs, dt), "", "<= 0"),
            claims.claim(f"{peer}, {name}: largest time difference", 1e6 * largest(ours, theirs), "ns", "<= 0.001"),
        ]
    return rows


def exports(config: Config, peer: str, current: np.ndarray) -> list[tuple[str, Any, Any, str]]:
    """Return name, cell, params and script of every neuron without noise that a program knows."""
    dt, plain = config.dt, jl.LIF(dt=config.dt)
    if peer == "nest":
        models = {name: to_nest(LIF, dt=dt, synapse=name) for name in ("delta", "exp")}
        return [(model[0], plain, LIF, to_script(model, current, dt=dt)) for model in models.values()]
    cells = {"LIF": (plain, LIF), "adaptive": (jl.AdaptiveLIF(dt=dt), FULL)}
    return [
        (name, cell, params, to_script(to_brian2(params, dt=dt), current, dt=dt))
        for name, (cell, params) in cells.items()
    ]


def alone(ours: np.ndarray, theirs: np.ndarray, dt: float) -> int:
    """Count the spikes whose step holds none of the other's."""
    a, b = (set(np.round(times / dt).astype(int).tolist()) for times in (ours, theirs))
    return len(a ^ b)


def largest(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest difference of paired spikes, ms, as far as both trains go."""
    n = min(len(ours), len(theirs))
    return float(np.abs(ours[:n] - theirs[:n]).max()) if n else 0.0


def noisy_rates(config: Config, peers: list[str]) -> list[dict[str, Any]]:
    """Compare the rates of the neurons with escape noise, over copies and windows."""
    current, copies = noise(config, config.noisy_duration), config.copies
    ours = counts(config, *here(config, current))
    rows = [rate(config, "jaxlif", ours)]
    for peer in peers:
        model = to_nest(GIF, dt=config.dt) if peer == "nest" else to_brian2(GIF, dt=config.dt, escape_noise=True)
        found = run(peer, to_script(model, current, dt=config.dt, neurons=copies))
        theirs = counts(config, np.array(found["times"]), np.array(found["neurons"], int))
        whole = abs(deviations(ours.sum(axis=1), theirs.sum(axis=1)))
        worst = np.abs(deviations(ours, theirs)).max()
        rows += [
            rate(config, peer, theirs),
            claims.claim(f"{peer}, escape noise: rate less jaxlif's", whole, "standard errors", "<= 3"),
            claims.claim(f"{peer}, escape noise: the same, worst window", worst, "standard errors", "<= 3.5"),
        ]
    return rows


def here(config: Config, current: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return times, ms, and neurons of the spikes of jaxlif's copies."""
    inputs = jl.escape_inputs(jax.random.key(config.seed + 1), np.repeat(current[:, None], config.copies, axis=1))
    _, output = jl.simulate(jl.EscapeNoise(jl.AdaptiveLIF(dt=config.dt)), GIF, inputs)
    steps, neurons = np.nonzero(np.asarray(output.spikes))
    return (steps + 1) * config.dt, neurons


def counts(config: Config, times: np.ndarray, neurons: np.ndarray) -> np.ndarray:
    """Count the spikes of every copy in every window: [copies, windows]."""
    width = config.noisy_duration / config.windows
    window = np.clip(np.ceil(times / width - 1e-6).astype(int) - 1, 0, config.windows - 1)
    flat = np.bincount(neurons * config.windows + window, minlength=config.copies * config.windows)
    return flat.reshape(config.copies, config.windows)


def deviations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the difference of two means over the copies in its standard errors; 0 where nobody varies."""
    error = np.sqrt((a.var(axis=0, ddof=1) + b.var(axis=0, ddof=1)) / len(a))
    return (a.mean(axis=0) - b.mean(axis=0)) / np.where(error > 0, error, np.inf)


def rate(config: Config, name: str, spikes: np.ndarray) -> dict[str, Any]:
    hertz = 1000.0 * spikes.sum(axis=1) / config.noisy_duration
    spread = float(hertz.std(ddof=1))
    return claims.claim(f"{name}, escape noise: rate", float(hertz.mean()), "Hz", sd=spread, seeds=config.copies)


if __name__ == "__main__":
    with jax.enable_x64(True):
        run_script(main, Config(), QUICK, __doc__)
