"""How well does a plain LIF follow the steps of a fast-spiking interneuron?

Question: with the membrane from what is below threshold, how far are the rates off, and the spikes of steps that were
held out? (A blind search over all parameters, by rates alone, reaches 3.0 Hz.)
Method: ``fit_recording`` on the step protocol of ``2019_07_24_0055_fsi.abf``: tau_m, r_m and v_rest from the silent
sweeps, v_th, v_reset and t_ref from the spikes of all in the 500 ms step. Reported: the root mean square error of the
closed form, of a simulation of the recorded protocol, of rates predicted from every second current by the model and by
a line; and of a fit to every second sweep the errors of spikes and of the first one in the others.
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
    result = jl.fit_recording(jl.read_recording(claims.recording_path(config.file)), "lif")
    errors, params, test = result.scores["f_i"], result.params, result.scores["test"]
    rows = [
        claims.claim("f-I curve, closed form: RMSE", errors["rmse"], "Hz", config.target),
        claims.claim("f-I curve, simulated protocol: RMSE", errors["rmse_simulated"], "Hz", config.target),
        claims.claim("f-I curve, every second current held out: RMSE", errors["rmse_held_out"], "Hz"),
        claims.claim("the same by linear interpolation", errors["rmse_interpolated"], "Hz"),
        claims.claim(
            "held-out steps of 20 spikes at most: RMSE", test["spikes_per_step_rmse_to_20"], "spikes", "<= 0.8"
        ),
        claims.claim("of more: RMSE", 100.0 * test["spikes_per_step_share_above_20"], "% of the spikes", "<= 10"),
        claims.claim("first spike of held-out steps: median error", test["latency_error"], "ms", "<= 5"),
        claims.claim("silent steps held out that stay silent", 100.0 * test["silent_steps"], "%", ">= 100"),
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
