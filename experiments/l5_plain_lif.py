"""How far does a plain LIF get on a layer 5 pyramidal cell?

Question: what share of the cell's own reliability do the free-running spikes of a plain LIF reach on time that was not
fitted? (Differential evolution with 6500 simulations reaches 0.73-0.74 of it on other held-out time.)
Method: ``fit_recording`` on 0-10 s of all nine repeats of a frozen noise, scored on 10-14 s: coincidence factor at
4 ms, divided by the mean coincidence factor of the repeats among themselves, and Md*. No electrode compensation.
The spike cut of the recipe (up to 20 ms) was set with this window's scores in view: it is no untouched test.
Command: JAXLIF_DATA=folder python experiments/l5_plain_lif.py
"""

from dataclasses import dataclass

import claims

import jaxlif as jl


@dataclass(frozen=True)
class Config:
    """Which recording, and which part of it is fitted."""

    file: str = "l5_pyramidal_frozen_noise.npz"
    train: tuple[float, float] = (0.0, 10_000.0)  # ms


def main(config: Config = Config()) -> None:
    recording = jl.read_recording(claims.recording_path(config.file))
    scores = jl.fit_recording(recording, window=config.train).scores["test"]
    metrics = {
        "coincidence_factor": ("coincidence factor at 4 ms", ""),
        "reliability": ("the cell's own reliability at 4 ms", ""),
        "coincidence_factor_over_reliability": ("share of the cell's own reliability", ""),
        "md_star": ("Md* at 4 ms", ""),
        "voltage_rmse": ("voltage RMSE, spikes forced", "mV"),
        "voltage_variance_explained": ("voltage variance explained, spikes forced", ""),
    }
    rows = [claims.claim(label, scores[name], unit) for name, (label, unit) in metrics.items()]
    claims.write_claims("l5_plain_lif", rows)
    print(claims.table(rows))


if __name__ == "__main__":
    main()
