"""What a fit to a recording leaves behind: parameters with units, scores, predictions, and a file of them."""

import json
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlif.fitting.prediction import forced_response, free_response
from jaxlif.neurons.lif import LIFParams
from jaxlif.recordings import Recording, detect_spikes

FORMAT = "jaxlif fit 1"

STANDARD_NAMES = {
    "tau_m": ("membrane time constant", "ms"),
    "r_m": ("membrane resistance", "GΩ"),
    "v_rest": ("resting potential", "mV"),
    "v_th": ("spike threshold", "mV"),
    "v_reset": ("reset potential", "mV"),
    "t_ref": ("absolute refractory period", "ms"),
}


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
    ``voltage`` [sweeps, T], mV, of the first repeat.
    """

    spike_time: np.ndarray
    spike_repeat: np.ndarray
    spike_sweep: np.ndarray
    voltage: np.ndarray


@dataclass(frozen=True)
class RecordingFit:
    """A model fitted to a recording.

    Args:
        model: the model's name.
        params: fitted parameters, Python floats.
        scores: by part ("train", "test", "f_i") the scores by name; None where one is not defined.
        bounds: of the free parameters, in their units.
        train: the window that was fitted, ms.
        protocol: "steps" or "fluctuating".
        spike_rule: how spikes were found.
        spike_cut: time before and after each spike in which voltages were not compared, ms.
        data: name, sha256, current_source, dt in ms and shape of the recording.
        seed: of everything random in the fit.
        warnings: what the user should know.
        curve: for steps the f-I table: currents pA, rates and fitted rates in Hz.
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

    def predict(
        self, recording: Recording, *, repeats: int = 1, seed: int = 0, force_spikes: bool = False
    ) -> Prediction:
        """Predict the response to a recording's current.

        Args:
            recording: its current drives the model, at its own dt.
            repeats: how often each sweep is presented; a deterministic model answers alike.
            seed: of the model's randomness, of which a deterministic model has none.
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
                spikes = self.spike_rule.find(recording)
                voltage = forced_response(self.params, recording, spikes).voltage
            else:
                spikes, voltage = free_response(self.params, recording)
        sweep, step = np.nonzero(spikes)
        count = len(sweep)
        return Prediction(
            spike_time=np.tile((step + 1) * recording.dt, repeats),
            spike_repeat=np.repeat(np.arange(repeats), count),
            spike_sweep=np.tile(sweep, repeats),
            voltage=voltage,
        )

    def save(self, directory: str | os.PathLike) -> Path:
        """Write ``fit.json`` into a directory, made where it is missing; return the file's path."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self._document(), indent=2, ensure_ascii=False, allow_nan=False)
        return write_atomically(folder / "fit.json", text.encode())

    def _document(self) -> dict[str, Any]:
        def parameter(name, value):
            standard_name, unit = STANDARD_NAMES[name]
            bounds = list(self.bounds[name]) if name in self.bounds else None
            return {"value": value, "unit": unit, "bounds": bounds, "standard_name": standard_name}

        document: dict[str, Any] = {"format": FORMAT, "model": self.model, "protocol": self.protocol}
        document["parameters"] = {name: parameter(name, value) for name, value in asdict(self.params).items()}
        document |= {"scores": self.scores, "train_ms": list(self.train), "spike_rule": asdict(self.spike_rule)}
        document["spike_cut_ms"] = list(self.spike_cut)
        document |= {"data": self.data, "seed": self.seed, "warnings": list(self.warnings), "f_i_curve": self.curve}
        return document | {"versions": _versions()}


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


def _from_document(document):
    parameters = document["parameters"]
    params = LIFParams(**{name: float(p["value"]) for name, p in parameters.items()})
    params.check()
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
    )


def _versions():
    packages = {name: version(name) for name in ("jaxlif", "jax", "jaxlib", "optax", "numpy")}
    return {"python": platform.python_version()} | packages
