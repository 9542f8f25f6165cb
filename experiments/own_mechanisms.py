"""What do mechanisms of one's own add to the currents that a fit chooses by itself?

Question: on time that was not fitted, is a cell's adaptive neuron better with an A-current of Hodgkin-Huxley form, with
the exponential onset of a spike, or with both, than with the mechanisms that :func:`jaxlif.fit_recording` chooses?
Method: ``fit_recording(recording, "gif", mechanisms=...)`` on each file, its default window: the first 70 % is fitted,
the last 30 % judges. Bits per spike above a Poisson train, and the variance of the voltage with spikes forced.
Command: JAXLIF_DATA=folder python experiments/own_mechanisms.py
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import claims
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

import jaxlif as jl

OWN = {
    "none": (),
    "A-current": (jl.ACurrent(),),
    "exponential": (jl.Exponential(),),
    "both": (jl.ACurrent(), jl.Exponential()),
}
SHOWN = {"bits_per_spike": "bits per spike", "voltage_variance_explained": "share of the variance of the voltage"}


@dataclass(frozen=True)
class Config:
    """The files, each a cell under noise."""

    files: tuple[str, ...] = (
        "l5_pyramidal_frozen_noise.npz",
        "dorsal_raphe/DRN158_GABA/training.abf",
        "dorsal_raphe/DRN159_5HT/training.abf",
        "dorsal_raphe/DRN162_5HT/training.abf",
    )


def main(config: Config = Config()) -> None:
    scores = {file: dict(fitted(file)) for file in config.files}
    claims.publish("own_mechanisms", list(rows(scores)), lambda: draw(scores), write=True)


def fitted(file: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the scores of unseen time with each choice of mechanisms."""
    recording = jl.read_recording(claims.recording_path(file))
    for name, mechanisms in OWN.items():
        yield name, jl.fit_recording(recording, "gif", mechanisms=mechanisms).scores["test"]


def cell(file: str) -> str:
    return file.split("/")[-2] if "/" in file else file.split("_")[0]


def rows(scores: dict[str, dict[str, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    for file, each in scores.items():
        for name, found in each.items():
            yield from (claims.claim(f"{cell(file)}, {name}: {text}", found[score]) for score, text in SHOWN.items())


def draw(scores: dict[str, dict[str, dict[str, Any]]]) -> Figure:
    """Draw each score by cell, a mark for each choice."""
    figure, axes = plt.subplots(1, len(SHOWN), figsize=(8.0, 3.2), layout="constrained")
    for ax, (score, text) in zip(axes, SHOWN.items(), strict=True):
        for name, mark in zip(OWN, "o^vs", strict=True):
            values = [each[name][score] for each in scores.values()]
            ax.plot(values, list(map(cell, scores)), mark, label=name, fillstyle="none")
        ax.set(xlabel=text)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(OWN), frameon=False)
    return figure


if __name__ == "__main__":
    main()
