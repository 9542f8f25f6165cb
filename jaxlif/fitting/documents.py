"""The parts of a fit as plain values for its file, and back."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from jaxlif.fitting.data import Drift
from jaxlif.fitting.intervals import Stimulation, Uncertainty
from jaxlif.neurons.adaptive import AdaptiveLIFParams, VoltageCoupling
from jaxlif.neurons.leaky import LeakyParams
from jaxlif.neurons.lif import LIFParams
from jaxlif.recordings import Electrode

FORMAT = "jaxlif fit 1"


def electrode_document(sweeps: tuple[int, ...], electrode: Electrode) -> dict[str, Any]:
    """Return an electrode and the sweeps it belongs to as plain values."""
    return {
        "sweeps": list(sweeps),
        "resistance_GOhm": electrode.resistance,
        "source": electrode.source,
        "dt_ms": electrode.dt,
        "kernel_GOhm": electrode.kernel.tolist(),
    }


def electrode_from(document: Mapping[str, Any]) -> tuple[tuple[int, ...], Electrode]:
    """Undo :func:`electrode_document`."""
    kernel = np.asarray(document["kernel_GOhm"], float)
    return tuple(document["sweeps"]), Electrode(kernel, float(document["dt_ms"]), document["source"])


def drift_document(drift: Drift | None) -> dict[str, list[float]] | None:
    """Return the terms of single sweeps as plain values."""
    return None if drift is None else {"offset_mV": drift.offset.tolist(), "gain": drift.gain.tolist()}


def drift_from(document: Mapping[str, Any] | None) -> Drift | None:
    """Undo :func:`drift_document`."""
    if not document:
        return None
    return Drift(np.asarray(document["offset_mV"], float), np.asarray(document["gain"], float))


def uncertainty_document(known: Uncertainty) -> dict[str, Any]:
    """Matrices over the names, in free coordinates; the correlations again follow from the covariance."""
    return {
        "names": list(known.names),
        "correlations": known.correlations.round(4).tolist(),
        "covariance": known.covariance.tolist(),
        "information_voltage": known.information[0].tolist(),
        "information_spikes": known.information[1].tolist(),
        "dispersion_voltage": known.dispersion[0],
        "dispersion_spikes": known.dispersion[1],
        "voltage_error_mV": known.voltage_error,
        "stimulus": dict(zip(_STIMULUS, known.stimulus, strict=True)),
    }


_STIMULUS = ("mean_pA", "sd_pA", "tau_ms", "duration_ms")


def uncertainty_from(document: Mapping[str, Any], intervals: Mapping[str, tuple[float, float]]) -> Uncertainty:
    """Undo :func:`uncertainty_document`, with the intervals of the parameters."""
    matrices = (np.array(document[f"information_{kind}"], float) for kind in ("voltage", "spikes"))
    return Uncertainty(
        names=tuple(document["names"]),
        intervals=dict(intervals),
        covariance=np.array(document["covariance"], float),
        information=np.stack(list(matrices)),
        dispersion=(document["dispersion_voltage"], document["dispersion_spikes"]),
        voltage_error=document["voltage_error_mV"],
        notes=(),
        stimulus=Stimulation(*(float(document["stimulus"][name]) for name in _STIMULUS)),
    )


def params_from(values: Mapping[str, float]) -> LIFParams | LeakyParams:
    """Put values with dotted names back into parameters."""
    if "v_th" not in values:
        return LeakyParams(**values)
    if "delta_v" not in values:
        return LIFParams(**values)
    coupling = {name.removeprefix("coupling."): x for name, x in values.items() if name.startswith("coupling.")}
    terms: dict[str, Any] = {
        kind: tuple(values[name] for name in values if name.startswith(f"{kind}."))
        for kind in ("eta", "tau_eta", "gamma", "tau_gamma", "a", "tau_a")
    }
    plain: dict[str, Any] = {name: x for name, x in values.items() if "." not in name}
    return AdaptiveLIFParams(**plain, **terms, coupling=VoltageCoupling(**coupling) if coupling else None)


def versions() -> dict[str, str]:
    """Return the versions of what a fit was made with."""
    packages = {name: version(name) for name in ("jaxlif", "jax", "jaxlib", "optax", "numpy")}
    return {"python": platform.python_version()} | packages
