"""Does a neuron fitted to one kind of input predict the same cell under another?

Question: one cell received one noise at four means and strengths. How well do a plain LIF, an adaptive neuron with
escape noise ("gif") and its deterministic twin ("deterministic-gif") predict (a) the last 8 s of a stimulus of which
they saw the rest, and (b) a stimulus of which they saw nothing? Scores at 2 and at 4 ms: the coincidence factor as a
share of the cell's own reliability, for which the deterministic models are meant, and Md*, for which the noisy one is.
Method: ``fit_recording`` with all defaults. (a) 0-26 s of one stimulus, scored on 26-34 s. (b) ``held_out`` is one
stimulus and all the others are fitted, those too whose spikes the cell does not repeat: their voltage and their
likelihood count, but they choose no threshold. Only stimuli with R >= 0.2 are judged. Per stimulus a series resistance
is estimated from voltage and current and taken off, and v_rest is tied to the voltage before the stimulus.
The rules of the recipe were set on held-out time of the fitted stimuli and on the unreliable ones; that a current
sampled at 1 ms acts by the mean of two samples, and that a fit goes on until it gains nothing, by the likelihood of the
fitted stimuli (that of the left-out one was printed beside it).
Command: JAXLIF_DATA=folder python experiments/regimes.py (about five minutes on two cores; --quick: plain LIF only,
writes nothing)
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import claims
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import jaxlif as jl
from jaxlif import plotting
from jaxlif.recordings import repeats
from jaxlif.spiketrains import md_star, mean_coincidence_factor, reliability, spike_times


@dataclass(frozen=True)
class Config:
    """Which recording, what is fitted of it, and how it is scored."""

    file: str = "qsnmc2007_a.npz"
    train: tuple[float, float] = (0.0, 26_000.0)  # ms, within a regime
    models: tuple[str, ...] = ("lif", "deterministic-gif", "gif")
    deltas: tuple[float, ...] = (2.0, 4.0)  # ms
    trials: int = 32  # responses of the noisy model to each repeat
    least: float = 0.2  # reliability of a stimulus that is judged


QUICK = Config(models=("lif",), trials=4)
MUST = {
    ("left out", "deterministic-gif", "share 2"): ">= 0.60",
    ("left out", "deterministic-gif", "share 4"): ">= 0.72",
    ("left out", "gif", "md 4"): ">= 0.70",
    ("in regime", "deterministic-gif", "share 2"): ">= 0.75",
}
Scores = dict[str, float]


def main(config: Config = Config()) -> None:
    recording = jl.read_recording(claims.recording_path(config.file))
    judged = [g for g in repeats(recording) if _reliability(recording.select(g), 4.0) >= config.least]
    found: dict[tuple[str, str], dict[str, Scores]] = {}
    for model in config.models:
        for group in judged:
            name = recording.stimulus[group[0]]
            for kind, scores in (
                ("in regime", in_regime(recording.select(group), model, config)),
                ("left out", left_out(recording, name, group, model, config)),
            ):
                found.setdefault((kind, model), {})[name] = scores
                print(f"{kind}, {model}, stimulus {name}:", {k: round(x, 3) for k, x in scores.items()}, flush=True)
    rows = list(_claims(found))
    print(claims.table(rows))
    if config != QUICK:
        claims.write_claims("regimes", rows, _figure(found, config))


def in_regime(recording: jl.Recording, model: str, config: Config) -> Scores:
    """Fit the first part of a stimulus and score the rest."""
    result = jl.fit_recording(recording, model, window=config.train)
    window = config.train[1], recording.start + recording.duration
    return _scores(result, recording, window, config)


def left_out(recording: jl.Recording, name: str, group: np.ndarray, model: str, config: Config) -> Scores:
    """Fit all other stimuli and score this one."""
    result = jl.fit_recording(recording, model, held_out=f"stimulus:{name}")
    part = recording.select(group)
    return _scores(result, part, (part.start, part.start + part.duration), config)


def _scores(result: jl.RecordingFit, recording: jl.Recording, window: tuple[float, float], config: Config) -> Scores:
    """Score a model's own spikes in a window at each precision, and its rate."""
    noisy = result.model == "gif"
    prediction = result.predict(recording, repeats=config.trials if noisy else 1)
    lanes = prediction.spike_sweep + recording.num_sweeps * prediction.spike_repeat
    count = recording.num_sweeps * (config.trials if noisy else 1)
    model = [prediction.spike_time[lanes == lane] for lane in range(count)]
    cell = [np.asarray(t) for t in spike_times(result.spike_rule.find(recording).T, recording.dt)]
    model, cell = ([t[(t > window[0]) & (t <= window[1])] - window[0] for t in x] for x in (model, cell))
    duration = window[1] - window[0]
    rates = {name: 1000.0 * float(np.mean([len(t) for t in x])) / duration for name, x in _named(cell, model)}
    scores = {"rate": rates["model"], "rate of the cell": rates["cell"]}
    for delta in config.deltas:
        own = reliability(cell, duration=duration, delta=delta)
        gamma = mean_coincidence_factor(cell, model, duration=duration, delta=delta)
        scores |= {f"share {delta:g}": gamma / own, f"R {delta:g}": own}
        scores[f"md {delta:g}"] = md_star(cell, _distinct(model), delta=delta)
    return scores


def _named(cell: list[np.ndarray], model: list[np.ndarray]) -> Iterator[tuple[str, list[np.ndarray]]]:
    yield "cell", cell
    yield "model", model


def _distinct(trains: list[np.ndarray]) -> list[np.ndarray]:
    """Return one train of a model that answers every repeat alike."""
    return trains[:1] if all(np.array_equal(t, trains[0]) for t in trains) else trains


def _reliability(recording: jl.Recording, delta: float) -> float:
    spikes = jl.SpikeRule().find(recording)
    trains = [np.asarray(t) for t in spike_times(spikes.T, recording.dt)]
    return reliability(trains, duration=recording.duration, delta=delta)


LABELS = {"share": "Γ/R", "md": "Md*"}


def _claims(found: dict[tuple[str, str], dict[str, Scores]]) -> Iterator[dict[str, Any]]:
    for (kind, model), scores in found.items():
        names = [n for n in next(iter(scores.values())) if n.split()[0] in LABELS]
        for name in names:
            label, delta = name.split()
            values = [s[name] for s in scores.values()]
            target = MUST.get((kind, model, name))
            metric = f"{model}, {kind}: {LABELS[label]} at {delta} ms, mean over stimuli"
            yield claims.claim(metric, float(np.mean(values)), "", target)
    for (kind, model), scores in found.items():
        for stimulus, values in scores.items():
            for name in ("share 2", "share 4", "md 4", "rate"):
                unit = "Hz" if name == "rate" else ""
                label = "rate" if name == "rate" else f"{LABELS[name.split()[0]]} at {name.split()[1]} ms"
                yield claims.claim(f"{model}, {kind}, stimulus {stimulus}: {label}", values[name], unit)


def _figure(found: dict[tuple[str, str], dict[str, Scores]], config: Config) -> plt.Figure:
    """Draw the share of the reliability and Md* at 4 ms of every model, stimulus by stimulus."""
    with plt.rc_context(plotting.STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.4), sharey=True, layout="constrained")
        for ax, kind in zip(axes, ("in regime", "left out"), strict=True):
            for offset, (name, label) in zip((-0.2, 0.2), (("share 4", "Γ/R"), ("md 4", "Md*")), strict=True):
                for x, model in enumerate(config.models):
                    values = [s[name] for s in found[kind, model].values()]
                    color = plotting.PALETTE[0 if name == "share 4" else 1]
                    ax.bar(x + offset, np.mean(values), 0.36, color=color, alpha=0.5, label=label if x == 0 else None)
                    ax.plot([x + offset] * len(values), values, "o", color=color, markersize=4)
            ax.set_xticks(range(len(config.models)), config.models)
            ax.set(title={"in regime": "unseen time", "left out": "unseen stimulus"}[kind], ylim=(0.0, 1.05))
        axes[0].set_ylabel("score at 4 ms (dots: stimuli)")
        axes[0].legend()
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="plain LIF only, writes nothing")
    main(QUICK if parser.parse_args().quick else Config())
