"""How well does a plain LIF follow the f-I curve of a fast-spiking interneuron?

Question: with the passive parameters fixed from the subthreshold sweeps, how far are the rates off? (A blind search
over all parameters reaches 3.0 Hz.)
Method: ``fit_recording`` on the step protocol of ``2019_07_24_0055_fsi.abf``: tau_m, r_m and v_rest from the smallest
hyperpolarising step, v_th, v_reset and t_ref from 17 rates in the 500 ms step. Reported: the root mean square error of
the closed form, of a simulation of the recorded protocol, and of rates predicted from every second current.
Command: JAXLIF_DATA=folder python experiments/fsi_steps.py
"""

from dataclasses import dataclass

import claims
import matplotlib.pyplot as plt
import numpy as np

import jaxlif as jl
from jaxlif import plotting, theory


@dataclass(frozen=True)
class Config:
    """Which recording, and the target."""

    file: str = "2019_07_24_0055_fsi.abf"
    target: str = "<= 3.1"  # Hz


def main(config: Config = Config()) -> None:
    result = jl.fit_recording(jl.read_recording(claims.recording_path(config.file)))
    errors, params = result.scores["f_i"], result.params
    rows = [
        claims.claim("f-I curve, closed form: RMSE", errors["rmse"], "Hz", config.target),
        claims.claim("f-I curve, simulated protocol: RMSE", errors["rmse_simulated"], "Hz", config.target),
        claims.claim("f-I curve, every second current held out: RMSE", errors["rmse_held_out"], "Hz"),
        claims.claim("membrane time constant", params.tau_m, "ms"),
        claims.claim("membrane resistance", params.r_m, "GΩ"),
    ]
    claims.write_claims("fsi_steps", rows, draw(result))
    print(claims.table(rows))


def draw(result: jl.RecordingFit) -> plt.Figure:
    with plt.rc_context(plotting.STYLE):
        figure, ax = plt.subplots(figsize=(6.0, 4.0))
        currents, rates = (np.array(result.curve[name]) for name in ("current_pA", "rate_Hz"))
        fine = np.linspace(currents.min(), currents.max(), 400)
        fitted = np.asarray(theory.firing_rate(result.params, fine))
        plotting.fi_curve(currents, rates, fine, fitted, theory_label="LIF, closed form", ax=ax)
    return figure


if __name__ == "__main__":
    main()
