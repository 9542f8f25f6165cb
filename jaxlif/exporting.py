"""A fitted neuron written for another program, as text."""

import sys

import numpy as np

from jaxlif.checks import choice
from jaxlif.fitting.result import RecordingFit, neuron_json
from jaxlif.interop import brian2, nest
from jaxlif.neurons.readout import LeakyParams
from jaxlif.recordings import Recording, held_current


def exported(fit: RecordingFit, target: str, *, drive: Recording | None = None, synapse: str = "delta") -> str:
    """Write a fitted neuron as a script of NEST or Brian2, or as plain JSON.

    The scripts run the neuron and print its spikes: :func:`jaxlif.interop.nest.to_script` says how.

    Args:
        fit: the fit.
        target: "nest", "brian2" or "json".
        drive: its current is what a script injects, that of all its sweeps; by default 1 s of 1.5 times what the
            threshold needs, at the dt of the recording that was fitted.
        synapse: "delta" or "exp", for NEST.

    Returns:
        The text of the file, with the warnings of the fit.

    Raises:
        ValueError: for another target, a neuron that the program does not have, or sweeps whose currents differ.
    """
    choice("target", target, ("nest", "brian2", "json"))
    if target == "json":
        return neuron_json(fit)
    notes = [f"# note: {' '.join(note.split())}\n" for note in fit.warnings]
    return "".join(notes) + _script(fit, target, drive, synapse)


def _script(fit: RecordingFit, target: str, drive: Recording | None, synapse: str) -> str:
    if isinstance(fit.params, LeakyParams):
        raise ValueError(f'model = "passive": a membrane without spikes is no neuron of {target}; export it to json')
    dt = float(drive.dt if drive is not None else fit.data.get("dt_ms", 0.1))
    if drive is None:
        current = np.full(round(1000.0 / dt), 1.5 * (fit.params.v_th - fit.params.v_rest) / fit.params.r_m)
    else:
        current = _one_current(held_current(drive, bool(fit.data.get("current_sampled", False))))
    if target == "brian2":
        model = brian2.to_brian2(fit.params, dt=dt, escape_noise=fit.model == "gif")
        return brian2.to_script(model, current, dt=dt)
    if fit.model == "adaptive":
        raise ValueError("model = adaptive: NEST has this neuron with escape noise only; export a gif, or to brian2")
    return nest.to_script(nest.to_nest(fit.params, dt=dt, synapse=synapse), current, dt=dt)


def _one_current(drive: Recording) -> np.ndarray:
    if (drive.current != drive.current[0]).any():
        raise ValueError(f"drive has {drive.num_sweeps} sweeps of different currents: choose one with `sweeps`, as [0]")
    return drive.current[0]


def require_own_name(module: str) -> None:
    """Refuse a script whose name is that of a module which it, or what it imports, imports: it would find itself.

    Args:
        module: the script's name without .py.
    """
    if module in sys.stdlib_module_names or module in _IMPORTED:
        raise ValueError(f"out = {module}.py: the script imports a module {module}, and would find itself; rename it")


# By the scripts of NEST and Brian2, beside Python's own.
_IMPORTED = {"nest", "pynestkernel", "brian2", "numpy", "scipy", "sympy", "mpmath", "matplotlib", "pandas", "jinja2"}
_IMPORTED |= {"markupsafe", "Cython", "cython", "pyparsing", "packaging", "setuptools", "cpuinfo", "ipywidgets", "PIL"}
