"""How well do LIF f-I curves, with resistances from passive sweeps, predict currents that were not fitted?

Question: what error do fitted curves of 40 cells make at currents that were held out, does a passive sweep keep the
membrane resistance right, and what does steady-state adaptation add?
Method: ``fit_fi_population`` on the f-I and V-I tables of mouse visual cortex cells, all cells and starts in one call.
Every second current is held out in turn; the number is the median over cells of the root mean square error. The
measured resistance is the slope of a line through all passive voltages; in the joint fit it is free.
Command: JAXLIF_DATA=folder python experiments/fi_population.py
"""

import time
from dataclasses import dataclass
from typing import Any

import claims
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from jaxlif import plotting
from jaxlif.fitting.population import FICell, HeldOut, Population, fit_fi_population, held_out_rmse, read_fi_population


@dataclass(frozen=True)
class Config:
    """Which cells."""

    file: str = "allen_fi_curves.json"


def main(config: Config = Config()) -> None:
    cells = read_fi_population(claims.recording_path(config.file))
    start = time.perf_counter()
    joint = fit_fi_population(cells)
    seconds = time.perf_counter() - start
    held = {adaptation: held_out_rmse(cells, adaptation=adaptation) for adaptation in (False, True)}
    rows = [
        claims.claim("cells fitted", len(joint.names)),
        claims.claim("one call for all cells, compilation included", seconds, "s", "<= 10"),
        claims.claim("median RMSE at held-out currents", float(np.median(held[False].rmse)), "Hz", "<= 1.4"),
        claims.claim("the same with steady-state adaptation", float(np.median(held[True].rmse)), "Hz", "<= 1.1"),
        *paired(held),
        claims.claim("cells with r_m within 25 % of the passive sweeps'", 100.0 * close(cells, joint), "%", ">= 80"),
        claims.claim(
            "the same from the f-I curve alone", 100.0 * close(cells, fit_fi_population(cells, passive=None)), "%"
        ),
    ]
    print(claims.table(rows))
    claims.write_claims("fi_population", rows, draw(held))


def paired(held: dict[bool, HeldOut]) -> list[dict[str, Any]]:
    """Compare with and without adaptation cell by cell."""
    gain = held[True].rmse - held[False].rmse
    error = float(np.std(gain, ddof=1) / np.sqrt(len(gain)))
    return [claims.claim("adaptation changes the RMSE by, mean over cells", float(gain.mean()), "Hz", sd=error)]


def close(cells: list[FICell], found: Population) -> float:
    """Return the share of cells whose resistance is within 25 % of the slope of the passive voltages."""
    by_name = {cell.name: cell for cell in cells}
    slopes = [np.polyfit(by_name[n].passive_currents, by_name[n].passive_voltages, 1)[0] for n in found.names]
    return float(np.mean(np.abs(np.asarray(found.params.r_m) / slopes - 1.0) < 0.25))


def draw(held: dict[bool, HeldOut]) -> plt.Figure:
    with plt.rc_context(plotting.STYLE):
        figure, ax = plt.subplots(figsize=(4.2, 4.0), layout="constrained")
        top = 1.05 * max(h.rmse.max() for h in held.values())
        ax.plot([0.0, top], [0.0, top], color="0.6", linewidth=0.8)
        ax.plot(held[False].rmse, held[True].rmse, "o")
        ax.set(xlabel="RMSE, plain LIF (Hz)", ylabel="RMSE with adaptation (Hz)")
    return figure


if __name__ == "__main__":
    main()
