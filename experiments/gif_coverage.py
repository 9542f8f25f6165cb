"""Do the 95 % intervals of a fitted adaptive neuron contain the truth?

Question: in what share of simulated cells does the interval of each parameter, and the band of each kernel, contain the
value that made the data? And does a model whose spikes are shifted in time score nothing?
Method: a neuron with escape noise and all that the gif has: two spike-triggered currents and two threshold movements,
whose time constants are none of the fit's, a threshold that follows the voltage, and an outward current that the
voltage opens. Four repeats of 20 s of frozen noise at dt = 0.5 ms, the voltage measured with an Ornstein-Uhlenbeck
error (1 mV, 10 ms); every seed has its own noise. ``fit_recording`` has to find what there is: of a mechanism that it
does not take there is no interval, and how often that happens is counted apart. A kernel counts at six times after a
spike. Of 200 exact intervals chance puts one share in 20 outside 92 to 98 %. Printed, not claimed: estimates less the
truth in units of their standard errors, and median widths.
Shifted spikes: the coincidence factor of the recorded trains with themselves, shifted by 10 s.
Command: python experiments/gif_coverage.py (--quick: two seeds, nothing written; --keep FOLDER: leave every seed's fit
there, and take those that are there already)
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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
    mechanisms=(jl.MembraneCurrent(a=6.0, tau=80.0, v_i=-57.0),),
)  # fmt: skip
TIMES = np.array([6.0, 12.0, 25.0, 50.0, 100.0, 200.0])  # ms after a spike
WHAT = "share of 95 % intervals that contain the truth"


@dataclass(frozen=True)
class Config:
    """Every number of the experiment."""

    seeds: int = 200
    sweeps: int = 4
    duration: float = 20_000.0  # ms
    dt: float = 0.5  # ms
    mean: float = 185.0  # pA
    sd: float = 120.0  # pA
    error: tuple[float, float] = (1.0, 10.0)  # mV and ms of the voltage's error


class Seen(NamedTuple):
    """What one seed says of a parameter: the truth, the estimate and the ends of its interval, in its unit."""

    truth: float
    estimate: float
    low: float
    high: float


def main(config: Config, write: bool, keep: Path | None) -> None:
    seeds = tqdm(range(config.seeds), disable=not sys.stderr.isatty())
    fits, shifted = zip(*(one_seed(config, seed, keep) for seed in seeds), strict=True)
    seen = by_name(fits)
    rows = table_rows(fits, shifted, seen)
    print(claims.table(rows))
    print(claims.table(row for name, found in seen.items() for row in spread(name, np.array(found).T)))
    if write:
        claims.write_claims("gif_coverage", rows, draw(shares(seen)), command="python experiments/gif_coverage.py")


def one_seed(config: Config, seed: int, keep: Path | None) -> tuple[jl.RecordingFit, float]:
    """Return the fit to a seed's recording, and the score of its shifted spikes."""
    recording = simulate(config, seed)
    kept = None if keep is None else keep / str(seed) / "fit.json"
    if kept is not None and kept.exists():
        return jl.load_fit(kept), abs(shifted_score(recording))
    fit = jl.fit_recording(recording, "gif", electrode=None, window=(0.0, config.duration), seed=seed)
    if kept is not None:
        fit.save(kept.parent)
    return fit, abs(shifted_score(recording))


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


def by_name(fits: tuple[jl.RecordingFit, ...]) -> dict[str, list[Seen]]:
    """Return what each seed that has an interval says, by parameter, and by kernel and time."""
    found: dict[str, list[Seen]] = {}
    for fit in fits:
        for name, what in (*parameters(fit), *kernels(fit)):
            found.setdefault(name, []).append(what)
    return found


def parameters(fit: jl.RecordingFit) -> Iterator[tuple[str, Seen]]:
    """Yield what a fit says of each parameter that it has an interval of; of currents, of the one nearest the truth."""
    truth, values, own = named_leaves(TRUTH), named_leaves(fit.params), f"mechanisms.{nearest(fit)}."
    for name, ends in fit.intervals.items():
        if name.startswith(own) or not name.startswith("mechanisms."):
            called = name.replace(own, "mechanisms.0.")
            yield called, Seen(float(truth[called]), float(values[name]), *ends)


def nearest(fit: jl.RecordingFit) -> int:
    """Return which of a fit's currents is most like the true one: 10 mV count as much as a factor e in time."""
    true = TRUTH.mechanisms[0]
    away = [abs(m.v_i - true.v_i) / 10.0 + abs(np.log(m.tau / true.tau)) for m in fit.params.mechanisms]
    return int(np.argmin(away)) if away else 0


def kernels(fit: jl.RecordingFit) -> Iterator[tuple[str, Seen]]:
    """Yield what a fit says of each kernel at each time."""
    for kind in ("eta", "gamma"):
        jumps, taus = (np.array(getattr(TRUTH, name)) for name in (kind, f"tau_{kind}"))
        truth = np.exp(-TIMES[:, None] / taus) @ jumps
        for time, *row in zip(TIMES, truth, *fit.kernel(kind, TIMES), strict=True):
            yield f"kernel {kind} at {time:g} ms", Seen(*map(float, row))


def shifted_score(recording: jl.Recording) -> float:
    """Score the spikes against themselves, rolled by half the duration."""
    assert recording.spikes is not None
    rolled = np.roll(recording.spikes, recording.num_steps // 2, axis=1)
    data, model = (spike_times(x.T, recording.dt) for x in (recording.spikes, rolled))
    return float(mean_coincidence_factor(data, model, duration=recording.duration, delta=4.0))


def shares(seen: dict[str, list[Seen]]) -> dict[str, float]:
    """Return by name in what share of the seeds that have one the interval holds the truth, %."""
    return {name: 100.0 * float(np.mean([x.low <= x.truth <= x.high for x in xs])) for name, xs in seen.items()}


def table_rows(
    fits: tuple[jl.RecordingFit, ...], shifted: tuple[float, ...], seen: dict[str, list[Seen]]
) -> list[dict[str, Any]]:
    inside, claim = shares(seen), partial(claims.claim, seeds=len(fits))
    currents = np.array([len(fit.params.mechanisms) for fit in fits])
    lacking = np.mean([fit.params.coupling is None for fit in fits])
    return [
        claim(f"lowest {WHAT}", min(inside.values()), "%", ">= 93"),
        claim(f"highest {WHAT}", max(inside.values()), "%", "<= 97"),
        claim(f"mean {WHAT}", float(np.mean(list(inside.values()))), "%"),
        *(claims.claim(f"{name}: {WHAT}", share, "%", seeds=len(seen[name])) for name, share in inside.items()),
        claim("the current through the membrane is not taken", 100.0 * float(np.mean(currents == 0)), "%"),
        claim("another current is taken beside it", 100.0 * float(np.mean(currents > 1)), "%"),
        claim("the threshold that follows the voltage is not taken", 100.0 * float(lacking), "%"),
        claim("spikes shifted by half the duration: mean |coincidence factor|", float(np.mean(shifted)), "", "< 0.02"),
    ]


def spread(name: str, columns: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yield the mean and the standard deviation of errors [4, seeds] in standard errors, and the median width."""
    truth, estimate, low, high = np.log(columns) if (columns > 0.0).all() else columns
    errors, width = 2.0 * 1.96 * (estimate - truth) / (high - low), float(np.median(high - low))
    yield claims.claim(f"{name}: estimate less truth, standard errors", float(errors.mean()), sd=float(errors.std()))
    if (columns > 0.0).all():
        yield claims.claim(f"{name}: median factor between the ends of its interval", float(np.exp(width)))
    else:
        unit = "" if name.startswith("kernel") else standard_name(name)[1]
        yield claims.claim(f"{name}: median width of its interval", width, unit)


def draw(inside: dict[str, float]) -> plt.Figure:
    with plt.rc_context(plotting.STYLE):
        figure, ax = plt.subplots(figsize=(6.0, 6.5), layout="constrained")
        names = list(inside)[::-1]
        ax.plot([inside[name] for name in names], names, "o")
        ax.axvspan(93.0, 97.0, color="0.9")
        ax.axvline(95.0, color="0.6")
        ax.set(xlabel="95 % intervals that contain the truth (%)", xlim=(min(80.0, *inside.values()) - 1.0, 101.0))
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run that writes nothing")
    parser.add_argument(
        "--seeds", type=int, default=Config.seeds, help=f"how many; with others than {Config.seeds} nothing is written"
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where every seed's fit is left")
    given = parser.parse_args()
    config = Config(seeds=2 if given.quick else given.seeds)
    main(config, config == Config(), given.keep)
