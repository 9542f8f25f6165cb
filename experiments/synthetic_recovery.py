"""Does the fit find the truth? All six parameters of a LIF neuron from a noisy recording, ten times.

Question: how far from the truth are the parameters that ``fit_recording`` returns when the data come from the model?
Method: for each of ten seeds a random neuron is driven by 5 s of Ornstein-Uhlenbeck current at dt = 0.1 ms, strong
enough to make it fire; its voltage gets 0.2 mV of white noise and its spikes are drawn as single samples of 20 mV. The
fit starts up to 50 % off in every parameter (and once more from its own regression). Reported is the largest relative
error over the seeds, and that of the refractory period in steps.
Command: python experiments/synthetic_recovery.py
"""

from dataclasses import asdict, dataclass, replace

import claims
import jax
import numpy as np

import jaxlif as jl


@dataclass(frozen=True)
class Config:
    """What is simulated."""

    seeds: int = 10
    duration: float = 5000.0  # ms
    dt: float = 0.1  # ms
    noise: float = 0.2  # mV
    start_off: float = 0.5  # relative


def draw_neuron(rng: np.random.Generator) -> jl.LIFParams:
    v_rest = rng.uniform(-75.0, -60.0)
    v_th = v_rest + rng.uniform(12.0, 22.0)
    return jl.LIFParams(
        tau_m=rng.uniform(8.0, 30.0),
        r_m=rng.uniform(0.05, 0.2),
        v_rest=v_rest,
        v_th=v_th,
        v_reset=v_th - rng.uniform(5.0, 15.0),
        t_ref=round(rng.uniform(1.0, 6.0), 1),
    )


def record(truth: jl.LIFParams, config: Config, seed: int, rng: np.random.Generator) -> jl.Recording:
    rheobase = float(jl.theory.rheobase(truth))
    key = jax.random.key(seed)
    current = jl.stimulus.ornstein_uhlenbeck(key, 0.9 * rheobase, 0.7 * rheobase, 5.0, config.duration, config.dt)
    _, output = jl.simulate(jl.LIF(dt=config.dt), truth, current)
    voltage = np.asarray(output.v) + config.noise * rng.normal(size=current.shape)
    drawn = np.where(np.asarray(output.spikes) > 0, 20.0, voltage)
    return jl.Recording(current=np.asarray(current), voltage=drawn, dt=config.dt)


def draw_start(truth: jl.LIFParams, config: Config, rng: np.random.Generator) -> jl.LIFParams:
    """Move every parameter by up to the given share of its value, and v_reset below v_th where that crossed them."""
    off = {name: value * (1.0 + rng.uniform(-1, 1) * config.start_off) for name, value in asdict(truth).items()}
    inside = {name: float(np.clip(off[name], -118.0, -22.0)) for name in ("v_rest", "v_th", "v_reset")}
    start = replace(jl.LIFParams(**off), **inside)
    return replace(start, v_reset=min(start.v_reset, start.v_th - 1.0))


def errors(found: jl.LIFParams, truth: jl.LIFParams, dt: float) -> dict[str, float]:
    relative = {name: abs(getattr(found, name) / value - 1.0) for name, value in asdict(truth).items()}
    return relative | {"t_ref": abs(found.t_ref - truth.t_ref) / dt}


def main(config: Config = Config()) -> None:
    found: dict[str, list[dict[str, float]]] = {"start 50 % off": [], "own start": []}
    for seed in range(config.seeds):
        rng = np.random.default_rng(seed)
        truth = draw_neuron(rng)
        recording = record(truth, config, seed, rng)
        window = (0.0, config.duration)
        for name, start in (("start 50 % off", draw_start(truth, config, rng)), ("own start", None)):
            result = jl.fit_recording(recording, window=window, start=start)
            found[name].append(errors(result.params, truth, config.dt))
    rows = []
    for name, runs in found.items():
        for parameter in runs[0]:
            worst = max(run[parameter] for run in runs)
            unit, target, value = ("steps", "<= 1", worst) if parameter == "t_ref" else ("%", "<= 1", 100.0 * worst)
            rows.append(claims.claim(f"{parameter}, {name}: largest error", value, unit, target, seeds=config.seeds))
    claims.write_claims("synthetic_recovery", rows)
    print(claims.table(rows))


if __name__ == "__main__":
    with jax.enable_x64(True):
        main()
