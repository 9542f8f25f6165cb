"""What a fit to a recording leaves behind: parameters with units, scores, predictions, and a file of them."""

import json
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from jaxlif.fitting.bounds import named_leaves
from jaxlif.fitting.prediction import forced_response, free_response, noisy_responses
from jaxlif.fitting.uncertainty import Stimulation, Uncertainty
from jaxlif.neurons.adaptive import AdaptiveLIFParams, VoltageCoupling
from jaxlif.neurons.lif import LIFParams
from jaxlif.recordings import Electrode, Recording, detect_spikes

FORMAT = "jaxlif fit 1"

STANDARD_NAMES = {
    "tau_m": ("membrane time constant", "ms"),
    "r_m": ("membrane resistance", "GΩ"),
    "v_rest": ("resting potential", "mV"),
    "v_th": ("spike threshold", "mV"),
    "v_reset": ("reset potential", "mV"),
    "t_ref": ("absolute refractory period", "ms"),
    "eta": ("jump of spike-triggered current", "pA"),
    "tau_eta": ("time constant of spike-triggered current", "ms"),
    "gamma": ("jump of threshold at a spike", "mV"),
    "tau_gamma": ("time constant of threshold jump", "ms"),
    "a": ("subthreshold adaptation", "nS"),
    "tau_a": ("time constant of subthreshold adaptation", "ms"),
    "coupling.b": ("coupling of threshold to voltage", ""),
    "coupling.tau": ("time constant of that coupling", "ms"),
    "coupling.v_i": ("voltage from which the threshold follows", "mV"),
    "coupling.k": ("width of that bend", "mV"),
    "delta_v": ("width of escape noise", "mV"),
    "lambda_0": ("escape rate at threshold", "1/ms"),
}


def standard_name(parameter: str) -> tuple[str, str]:
    """Return what a parameter is called in words, and its unit.

    Args:
        parameter: its dotted name, such as "tau_m" or "eta.0".

    Example:
        >>> standard_name("eta.0")
        ('jump of spike-triggered current 1', 'pA')
    """
    if parameter in STANDARD_NAMES:
        return STANDARD_NAMES[parameter]
    base, _, index = parameter.rpartition(".")
    words, unit = STANDARD_NAMES[base]
    return f"{words} {int(index) + 1}", unit


@dataclass(frozen=True)
class SpikeRule:
    """How spikes are found in a voltage trace; see :func:`jaxlif.recordings.detect_spikes`.

    Args:
        method: "level" or "dvdt".
        threshold: level to be crossed upwards, mV.
        slope: dV/dt to be crossed with the second method, mV/ms.
    """

    method: str = "level"
    threshold: float = 0.0
    slope: float = 20.0

    def find(self, recording: Recording) -> np.ndarray:
        """Return the known spikes of a recording, or those that the rule finds in its voltage, [sweeps, T]."""
        if recording.spikes is not None:
            return recording.spikes
        return detect_spikes(recording.measured_voltage(), recording.dt, **asdict(self))


class Prediction(NamedTuple):
    """Predicted spikes and voltage.

    ``spike_time`` [n] in ms from the start of the sweep, with ``spike_repeat`` [n] and ``spike_sweep`` [n];
    ``voltage`` [sweeps, T], mV, is the membrane's, of the first repeat; ``electrode_drop`` [sweeps, T], mV, is what
    the electrode of the fitted recording would have added to it.
    """

    spike_time: np.ndarray
    spike_repeat: np.ndarray
    spike_sweep: np.ndarray
    voltage: np.ndarray
    electrode_drop: np.ndarray


@dataclass(frozen=True)
class RecordingFit:
    """A model fitted to a recording.

    Args:
        model: the model's name.
        params: fitted parameters, Python floats.
        scores: by part ("train", "test", "f_i") the scores by name; None where one is not defined.
        bounds: of the free parameters, in their units.
        train: the window that was fitted before the rest was scored, ms.
        protocol: "steps" or "fluctuating".
        spike_rule: how spikes were found.
        spike_cut: time before and after each spike in which voltages were not compared, ms.
        data: name, sha256, current_source, dt in ms and shape of the recording.
        seed: of everything random in the fit.
        warnings: what the user should know.
        curve: for steps the f-I table: currents pA, rates and fitted rates in Hz.
        electrodes: the electrodes that were taken off the voltage, each with the sweeps it belongs to.
        intervals: 95 % intervals of the parameters, by name, where the model has them.
        uncertainty: correlations and information behind the intervals, or None.
        scored: where ``params`` were refitted to the whole recording, the parameters that were fitted to ``train``
            alone and that the scores belong to.
    """

    model: str
    params: LIFParams
    scores: Mapping[str, Mapping[str, Any]]
    bounds: Mapping[str, tuple[float, float]]
    train: tuple[float, float]
    protocol: str
    spike_rule: SpikeRule
    spike_cut: tuple[float, float]
    data: Mapping[str, Any]
    seed: int
    warnings: tuple[str, ...] = ()
    curve: Mapping[str, list[float]] = field(default_factory=dict)
    electrodes: tuple[tuple[tuple[int, ...], Electrode], ...] = ()
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    uncertainty: Uncertainty | None = None
    scored: LIFParams | None = None

    def as_scored(self) -> "RecordingFit":
        """Return the fit with the parameters that its scores belong to, which never saw what they were scored on."""
        return (
            self
            if self.scored is None
            else replace(self, params=self.scored, scored=None, intervals={}, uncertainty=None)
        )

    def predict(
        self, recording: Recording, *, repeats: int = 1, seed: int = 0, force_spikes: bool = False
    ) -> Prediction:
        """Predict the response to a recording's current.

        Args:
            recording: its current drives the model, at its own dt.
            repeats: how often each sweep is presented; only a "gif" answers differently each time.
            seed: of its escape noise.
            force_spikes: reset at the recording's spikes instead of the model's, from its first voltage.

        Returns:
            The :class:`Prediction`; with ``force_spikes`` its spikes are the recorded ones.

        Raises:
            ValueError: for repeats < 1, or forced spikes without a voltage or spikes to take them from.
        """
        if repeats < 1:
            raise ValueError(f"repeats = {repeats}: at least 1 repeat is needed")
        if force_spikes and recording.voltage is None:
            raise ValueError("force_spikes needs a recording with a voltage: this one has only a current")
        with jax.enable_x64(True):
            if force_spikes:
                return self._forced(recording, repeats)
            if self.model == "gif":
                return self._noisy(recording, repeats, seed)
            spikes, voltage = free_response(self.params, recording)
        return self._prediction(recording, np.broadcast_to(spikes, (repeats, *spikes.shape)), voltage)

    def _forced(self, recording: Recording, repeats: int) -> Prediction:
        spikes = self.spike_rule.find(recording)
        clean = replace(recording, voltage=recording.measured_voltage() - self.electrode_drop(recording))
        voltage = forced_response(self.params, clean, spikes).voltage
        return self._prediction(recording, np.broadcast_to(spikes, (repeats, *spikes.shape)), voltage)

    def _noisy(self, recording: Recording, repeats: int, seed: int) -> Prediction:
        voltage, found = np.zeros(recording.current.shape), []
        params = cast(AdaptiveLIFParams, self.params)
        for repeat, sweep, response in noisy_responses(params, recording, repeats=repeats, seed=seed):
            found.append((repeat, sweep, np.flatnonzero(response.spikes)))
            if repeat == 0:
                voltage[sweep] = response.voltage
        counts = [len(steps) for _, _, steps in found]
        repeats_of, sweeps_of = (np.repeat([lane[i] for lane in found], counts) for i in (0, 1))
        times = (np.concatenate([steps for _, _, steps in found]) + 1) * recording.dt
        return Prediction(times, repeats_of, sweeps_of, voltage, self.electrode_drop(recording))

    def _prediction(self, recording: Recording, spikes: np.ndarray, voltage: np.ndarray) -> Prediction:
        repeat, sweep, step = np.nonzero(spikes)
        return Prediction((step + 1) * recording.dt, repeat, sweep, voltage, self.electrode_drop(recording))

    def electrode_drop(self, recording: Recording) -> np.ndarray:
        """Return what the electrode adds to the voltage under a recording's current, [sweeps, T], mV.

        One electrode serves any recording. Several belong to the sweeps of the recording that was fitted, known by its
        checksum and its number of sweeps; any other is taken to have had none of them.

        Args:
            recording: its current.
        """
        drop = np.zeros(recording.current.shape)
        if len(self.electrodes) == 1:
            return self.electrodes[0][1].drop(recording.current)
        if (recording.sha256, recording.num_sweeps) == (self.data["sha256"], self.data["sweeps"]):
            for sweeps, electrode in self.electrodes:
                drop[list(sweeps)] = electrode.drop(recording.current[list(sweeps)])
        return drop

    def save(self, directory: str | os.PathLike) -> Path:
        """Write ``fit.json`` into a directory, made where it is missing; return the file's path."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self._document(), indent=2, ensure_ascii=False, allow_nan=False)
        return write_atomically(folder / "fit.json", text.encode())

    def _document(self) -> dict[str, Any]:
        def parameter(name, value):
            words, unit = standard_name(name)
            bounds = list(self.bounds[name]) if name in self.bounds else None
            interval = list(self.intervals[name]) if name in self.intervals else None
            return {"value": value, "unit": unit, "bounds": bounds, "interval_95": interval, "standard_name": words}

        document: dict[str, Any] = {"format": FORMAT, "model": self.model, "protocol": self.protocol}
        document["parameters"] = {name: parameter(name, x) for name, x in named_leaves(self.params).items()}
        document |= {"scores": self.scores, "train_ms": list(self.train), "spike_rule": asdict(self.spike_rule)}
        document["spike_cut_ms"] = list(self.spike_cut)
        document |= {"data": self.data, "seed": self.seed, "warnings": list(self.warnings), "f_i_curve": self.curve}
        document["electrodes"] = [_electrode_document(*pair) for pair in self.electrodes]
        if self.uncertainty is not None:
            document["uncertainty"] = _uncertainty_document(self.uncertainty)
        document["scored_parameters"] = None if self.scored is None else named_leaves(self.scored)
        return document | {"versions": _versions()}


def neuron_json(fit: RecordingFit) -> str:
    """Return the neuron of a fit as plain JSON: its model and, by name, value, unit and what it is called in words.

    Args:
        fit: the fit.
    """
    named = {name: (x, *standard_name(name)) for name, x in named_leaves(fit.params).items()}
    parameters = {name: {"value": x, "unit": unit, "standard_name": words} for name, (x, words, unit) in named.items()}
    return json.dumps({"model": fit.model, "parameters": parameters}, indent=2, ensure_ascii=False, allow_nan=False)


def load_fit(path: str | os.PathLike) -> RecordingFit:
    """Read a ``fit.json`` back.

    Args:
        path: the file.

    Raises:
        ValueError: for a file that is missing, not JSON, or not such a fit.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f'{path}: not a fit written by jaxlif (its "format" is not "{FORMAT}")')
    try:
        return _from_document(document)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: the fit lacks or misspells a field ({error})") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_atomically(path: Path, content: bytes) -> Path:
    """Write a file under a temporary name beside it, then rename, so that it is never seen half-written."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(content)
            file.close()
            temporary.chmod(0o644)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return path


def _electrode_document(sweeps, electrode):
    return {
        "sweeps": list(sweeps),
        "resistance_GOhm": electrode.resistance,
        "source": electrode.source,
        "dt_ms": electrode.dt,
        "kernel_GOhm": electrode.kernel.tolist(),
    }


def _electrode_from(document):
    kernel = np.asarray(document["kernel_GOhm"], float)
    return tuple(document["sweeps"]), Electrode(kernel, float(document["dt_ms"]), document["source"])


def _uncertainty_document(known):
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


def _uncertainty_from(document, intervals):
    matrices = (np.array(document[f"information_{kind}"], float) for kind in ("voltage", "spikes"))
    return Uncertainty(
        names=tuple(document["names"]),
        intervals=intervals,
        covariance=np.array(document["covariance"], float),
        information=np.stack(list(matrices)),
        dispersion=(document["dispersion_voltage"], document["dispersion_spikes"]),
        voltage_error=document["voltage_error_mV"],
        notes=(),
        stimulus=Stimulation(*(float(document["stimulus"][name]) for name in _STIMULUS)),
    )


def _params_from(values):
    """Put values with dotted names back into parameters."""
    if "delta_v" not in values:
        return LIFParams(**values)
    coupling = {name.removeprefix("coupling."): x for name, x in values.items() if name.startswith("coupling.")}
    terms: dict[str, Any] = {
        kind: tuple(values[name] for name in values if name.startswith(f"{kind}."))
        for kind in ("eta", "tau_eta", "gamma", "tau_gamma", "a", "tau_a")
    }
    plain = {name: x for name, x in values.items() if "." not in name}
    return AdaptiveLIFParams(**plain, **terms, coupling=VoltageCoupling(**coupling) if coupling else None)


def _from_document(document):
    parameters = document["parameters"]
    params = _params_from({name: float(p["value"]) for name, p in parameters.items()})
    params.check()
    intervals = {name: tuple(p["interval_95"]) for name, p in parameters.items() if p.get("interval_95")}
    known = document.get("uncertainty")
    return RecordingFit(
        model=document["model"],
        params=params,
        scores=document["scores"],
        bounds={name: tuple(p["bounds"]) for name, p in parameters.items() if p["bounds"]},
        train=tuple(document["train_ms"]),
        protocol=document["protocol"],
        spike_rule=SpikeRule(**document["spike_rule"]),
        spike_cut=tuple(document["spike_cut_ms"]),
        data=document["data"],
        seed=document["seed"],
        warnings=tuple(document["warnings"]),
        curve=document["f_i_curve"],
        electrodes=tuple(_electrode_from(e) for e in document.get("electrodes", [])),
        intervals=intervals,
        uncertainty=_uncertainty_from(known, intervals) if known else None,
        scored=_params_from(document["scored_parameters"]) if document.get("scored_parameters") else None,
    )


def _versions():
    packages = {name: version(name) for name in ("jaxlif", "jax", "jaxlib", "optax", "numpy")}
    return {"python": platform.python_version()} | packages
