"""A fitted neuron written for another program, as text."""

import numpy as np

from jaxlif.fitting.result import RecordingFit, neuron_json
from jaxlif.interop import brian2, nest
from jaxlif.recordings import Recording


def exported(fit: RecordingFit, target: str, *, drive: Recording | None = None, synapse: str = "delta") -> str:
    """Write a fitted neuron as a script of NEST or Brian2, or as plain JSON.

    The scripts run the neuron and print its spikes: :func:`jaxlif.interop.nest.to_script` says how.

    Args:
        fit: the fit.
        target: "nest", "brian2" or "json".
        drive: the current that a script injects is that of its first sweep; by default 1 s of 1.5 times what the
            threshold needs, at the dt of the recording that was fitted.
        synapse: "delta" or "exp", for NEST.

    Returns:
        The text of the file.

    Raises:
        ValueError: for another target, or a neuron that the program does not have.
    """
    if target == "json":
        return neuron_json(fit)
    dt = float(drive.dt if drive is not None else fit.data.get("dt_ms", 0.1))
    if drive is None:
        current = np.full(round(1000.0 / dt), 1.5 * (fit.params.v_th - fit.params.v_rest) / fit.params.r_m)
    else:
        current = drive.current[0]
    if target == "brian2":
        model = brian2.to_brian2(fit.params, dt=dt, escape_noise=fit.model == "gif")
        return brian2.to_script(model, current, dt=dt)
    if target != "nest":
        raise ValueError(f'target = {target!r}: it must be "nest", "brian2" or "json"')
    if fit.model == "adaptive":
        raise ValueError("model = adaptive: NEST has this neuron with escape noise only; export a gif, or to brian2")
    return nest.to_script(nest.to_nest(fit.params, dt=dt, synapse=synapse), current, dt=dt)
