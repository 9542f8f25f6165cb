"""What a fit to a recording leaves behind: a neuron with scores, its predictions, and a file of it."""

import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from jaxlif.checks import choice, numbers
from jaxlif.files import reading, require_file, require_memory, staged
from jaxlif.fitting.data import Data, Drift, Uncertainty
from jaxlif.fitting.extrapolation import Regime, collapse_notes, extrapolation_notes
from jaxlif.fitting.fit_json import restored, written
from jaxlif.fitting.intervals import kernel_band
from jaxlif.fitting.joint_likelihood import spike_bits
from jaxlif.fitting.prediction import forced_voltage, free_response, neuron, noisy_response
from jaxlif.fitting.verdict import Verdict, verdict, worst_first
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.neurons.leaky import LeakyParams
from jaxlif.neurons.lif import LIFParams
from jaxlif.neurons.wrappers import EscapeNoise
from jaxlif.recordings import Electrode, Recording, SpikeRule, remove_electrode
from jaxlif.recordings.notes import held_current, resting_potentials, unpadded

#: Terms of kernels, which trade for one another: the kernels are shown at these times after a spike, ms.
TERMS = ("eta.", "tau_eta.", "gamma.", "tau_gamma.")
KERNEL_TIMES = (5.0, 20.0, 100.0, 300.0)
KERNELS = {"eta": ("current η", "pA"), "gamma": ("threshold γ", "mV")}


class Prediction(NamedTuple):
    """Predicted spikes and voltage.

    ``spike_time`` [n] in ms from the start of the sweep, with ``spike_repeat`` [n] and ``spike_sweep`` [n];
    ``voltage`` [sweeps, T], mV, is the membrane's, of the first repeat; ``electrode_drop`` [sweeps, T], mV, is what
    the electrode of the fitted recording would have added to it. ``notes`` say what the user should know.
    """

    spike_time: Float[np.ndarray, " spikes"]
    spike_repeat: Int[np.ndarray, " spikes"]
    spike_sweep: Int[np.ndarray, " spikes"]
    voltage: Float[np.ndarray, "sweeps T"]
    electrode_drop: Float[np.ndarray, "sweeps T"]
    notes: tuple[str, ...] = ()

    def raster(self, dt: float, repeats: int = 1) -> np.ndarray:
        """Return the spikes as booleans, [repeats, sweeps, T], at the dt of the recording, ms."""
        found = np.zeros((repeats, *self.voltage.shape), bool)
        found[self.spike_repeat, self.spike_sweep, np.round(self.spike_time / dt).astype(int) - 1] = True
        return found


@dataclass(frozen=True)
class RecordingFit:
    """A model fitted to a recording: its neuron, scores and all that is known about them."""

    model: str
    params: LIFParams | LeakyParams  # Python floats; of a "passive" membrane LeakyParams
    # By part, "train", "test", "test_file" or "f_i", and name; None where not defined.
    scores: Mapping[str, Mapping[str, Any]]
    bounds: Mapping[str, tuple[float, float]]  # of the free parameters, in their units
    window: tuple[float, float]  # that was fitted before the rest was scored, ms
    protocol: str  # "steps", "fluctuating" or "rates"
    spike_rule: SpikeRule
    spike_cut: tuple[float, float]  # before and after each spike, in which voltages were not compared, ms
    data: Mapping[str, Any]  # name, sha256, corrections, source of the current, dt and shape, checksums of the sweeps
    seed: int
    # Of the "electrode" and the "test" that were given beside the recording, by these names: "name" and "sha256".
    beside: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()  # what the user should know
    curve: Mapping[str, list[float]] = field(default_factory=dict)  # for steps: currents pA, rates and fitted rates Hz
    electrodes: tuple[tuple[tuple[int, ...], Electrode], ...] = ()  # that were taken off, each with its sweeps
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # 95 %, by name
    undetermined: tuple[str, ...] = ()  # parameters without an interval: their values say nothing
    held_out: tuple[int, ...] = ()  # sweeps that judged: what the scores belong to did not see them
    rest: str = "fitted"  # or v_rest was "measured" before the stimulus, sweep by sweep
    drift: Drift | None = None  # the terms of the recording's sweeps
    regimes: tuple[Regime, ...] = ()  # the inputs that were fitted, and how the cell answered
    bits_per_spike: float | None = None  # log-likelihood of the fitted spikes above a Poisson train
    uncertainty: Uncertainty | None = None  # correlations and information behind the intervals
    scored: LIFParams | LeakyParams | None = None  # what the scores belong to, where params were refitted to everything

    @property
    def cell(self) -> Any:
        """The neuron's numerics: ``jaxlif.simulate(fit.cell, fit.params, current)`` runs it, current [T, ...] in pA.

        LIF, AdaptiveLIF for a "deterministic-gif", LeakyIntegrator for a "passive" membrane; and for a "gif"
        EscapeNoise(AdaptiveLIF), whose inputs :func:`jaxlif.escape_inputs` makes of a key and the current. It starts at
        v_rest and knows nothing of single sweeps: their terms and the electrode are :meth:`predict`'s.
        """
        cell = neuron(self.params, float(self.data.get("dt_ms", 0.1)))
        return EscapeNoise(cell) if self.model == "gif" else cell

    @property
    def unseen(self) -> tuple[int, ...]:
        """The sweeps that the parameters never saw: none where they were refitted to all."""
        return self.held_out if self.scored is None else ()

    @property
    def verdict(self) -> Verdict:
        """How far to trust the fit, in a word and a sentence."""
        return verdict(self)

    @property
    def notes(self) -> tuple[str, ...]:
        """The ``warnings``, the worst first."""
        return worst_first(self.warnings)

    def kernel(self, kind: str, times: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        r"""Return what a spike leaves behind, :math:`\sum_k \eta_k e^{-t / \tau_k}`, and the ends of its 95 % band.

        Of "eta", the spike-triggered current, pA, or "gamma", the movement of the threshold, mV, at times after the
        spike, ms, each [T]; the ends are NaN where no errors were estimated. A model without kernels is refused.
        """
        if not isinstance(self.params, AdaptiveLIFParams):
            raise ValueError(f'model = "{self.model}": it has no kernels')
        choice("kind", kind, tuple(KERNELS))
        names = (*(f"{kind}.{k}" for k in range(len(getattr(self.params, kind)))), "r_m")
        known = self.uncertainty
        if known is None or not set(names) <= set(known.names):
            known = Uncertainty.unknown(names)
        return kernel_band(self.params, known, kind, np.asarray(numbers("times", times, "ms", rank=1), float))

    def as_scored(self) -> "RecordingFit":
        """Return the fit with the parameters that its scores belong to, which never saw what they were scored on."""
        if self.scored is None:
            return self
        return replace(self, params=self.scored, scored=None, intervals={}, undetermined=(), uncertainty=None)

    def predict(
        self, recording: Recording, *, repeats: int = 1, seed: int = 0, force_spikes: bool = False
    ) -> Prediction:
        """Predict the response to a recording's current.

        Where v_rest was measured, the sweeps of another recording rest where their own voltage does before the
        stimulus; where they have no voltage, all rest at the fitted recording's mean.

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
        require_memory(repeats * recording.current.size, f"{repeats} repeats of {recording.num_sweeps} sweeps")
        with jax.enable_x64(True):
            terms, notes = self._terms(recording)
            notes += self._corrections_note(recording)
            held = self._held(recording)
            driven = terms.driven(self.params, held)
            if force_spikes:
                return self._forced(recording, driven, repeats)._replace(notes=notes)
            if self.model == "gif":
                spikes, voltage = noisy_response(self.params, driven, repeats=repeats, seed=seed)
            else:
                spikes, voltage = free_response(self.params, driven)
        found = _prediction(recording, np.broadcast_to(spikes, (repeats, *driven.current.shape)), voltage)
        counts = np.bincount(found.spike_sweep, minlength=recording.num_sweeps)
        own = self._numbers(recording)
        new = np.flatnonzero((own < 0) | np.isin(own, self.unseen))
        rates = 1000.0 * counts[new] / (repeats * recording.duration)
        outside = extrapolation_notes(self.regimes, held.select(new), rates, new) if len(new) else ()
        return found._replace(electrode_drop=self.electrode_drop(recording), notes=notes + outside)

    def _corrections_note(self, recording: Recording) -> tuple[str, ...]:
        """Say where a file was read with other corrections than the fitted one."""
        fitted, own = (dict(given) for given in (self.data.get("corrections", {}), recording.corrections))
        if fitted == own or not recording.sha256:
            return ()
        words = [", ".join(f"{n} = {x}" for n, x in given.items()) or "no corrections" for given in (fitted, own)]
        return (f"the fit was made with {words[0]} and this recording was read with {words[1]}: is that meant?",)

    def _held(self, recording: Recording) -> Recording:
        """Return a recording with the current that drives a step, understood as that of the fitted recording."""
        return held_current(recording, bool(self.data.get("current_sampled", False)))

    def _terms(self, recording: Recording) -> tuple[Drift, tuple[str, ...]]:
        """Return the terms of a recording's sweeps, and what is not known about them."""
        own, none = self._own_sweeps(recording), Drift.none(recording.num_sweeps)
        if self.drift is not None and own is not None:
            return self.drift.select(own), ()
        if self.drift is None or self.rest == "fitted":
            return none, ()
        rest = None if recording.voltage is None else resting_potentials(recording, self.spike_rule.find(recording))
        if rest is None:
            v_rest = float(self.params.v_rest)
            why = "no voltage" if recording.voltage is None else "no 100 ms without current before the stimulus"
            return none, (f"where the cell rests is not known ({why}): v_rest = {v_rest:.4g} mV, as in the fit",)
        return Drift.of_rest(rest, float(self.params.v_rest)), ()

    def _own_sweeps(self, recording: Recording) -> np.ndarray | None:
        """Return which sweeps of the fitted recording these are; None where some are of another."""
        found = self._numbers(recording)
        return found if (found >= 0).all() else None

    def _numbers(self, recording: Recording) -> np.ndarray:
        """Return the number of each sweep in the fitted recording, by the checksums of the voltages; -1 of another."""
        own = {checksum: sweep for sweep, checksum in enumerate(self.data.get("sweep_crc32", ()))}
        if recording.voltage is None:
            return np.full(recording.num_sweeps, -1)
        return np.array([own.get(checksum, -1) for checksum in sweep_checksums(unpadded(recording))], int)

    def _forced(self, recording: Recording, driven: Recording, repeats: int) -> Prediction:
        spikes, drop = self.spike_rule.find(recording), self.electrode_drop(recording)
        clean = replace(driven, voltage=recording.measured_voltage() - drop)
        voltage = forced_voltage(self.params, clean, spikes)
        found = _prediction(recording, np.broadcast_to(spikes, (repeats, *spikes.shape)), voltage)
        return found._replace(electrode_drop=drop)

    def likelihood_note(self, recording: Recording) -> tuple[str, ...]:
        """Say whether a recording's spikes are far less likely under the model than those that it was fitted to."""
        own = self._numbers(recording)
        if self.model != "gif" or self.bits_per_spike is None or not ((own < 0) | np.isin(own, self.unseen)).any():
            return ()
        spikes = self.spike_rule.find(recording)
        terms, _ = self._terms(recording)
        voltage = recording.measured_voltage() - self.electrode_drop(recording)
        clean = replace(self._held(recording), voltage=voltage)
        bits = spike_bits(cast(AdaptiveLIFParams, self.params), Data.of(clean, spikes, drift=terms))  # a gif's
        return collapse_notes(self.bits_per_spike, bits)

    def electrode_drop(self, recording: Recording) -> Float[np.ndarray, "sweeps T"]:
        """Return what the electrode adds to the voltage under a recording's current, [sweeps, T], mV.

        Electrodes that were estimated from a recording belong to its sweeps, known by the checksums of their voltages.
        Any other recording with a voltage has its own, estimated from it. One electrode from elsewhere, and any where
        nothing can be estimated, serves all recordings.
        """
        drop = np.zeros(recording.current.shape)
        for sweeps, electrode in self._electrodes(recording):
            drop[list(sweeps)] = electrode.at(recording.dt).drop(recording.current[list(sweeps)])
        return drop

    def _electrodes(self, recording: Recording) -> tuple[tuple[tuple[int, ...], Electrode], ...]:
        own = self._own_sweeps(recording)
        if own is not None:
            chosen = ((tuple(map(int, np.flatnonzero(np.isin(own, sweeps)))), e) for sweeps, e in self.electrodes)
            return tuple(pair for pair in chosen if pair[0])
        if recording.voltage is not None and any(e.source == "recording" for _, e in self.electrodes):
            return remove_electrode(recording, self.spike_rule.find(recording), "auto").electrodes
        every = tuple(range(recording.num_sweeps))
        return ((every, self.electrodes[0][1]),) if len(self.electrodes) == 1 else ()

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write ``fit.json`` into a directory, made where it is missing; return the file's path."""
        folder = Path(directory)
        with staged(folder) as temporary:
            (temporary / "fit.json").write_bytes(written(self).encode())
        return folder / "fit.json"


def _prediction(recording: Recording, spikes: np.ndarray, voltage: np.ndarray) -> Prediction:
    repeat, sweep, step = np.nonzero(spikes)
    return Prediction((step + 1) * recording.dt, repeat, sweep, voltage, np.zeros_like(voltage))


def sweep_checksums(recording: Recording) -> list[int]:
    """Return a checksum of the voltage of each sweep; none where there is no voltage."""
    return [] if recording.voltage is None else [zlib.crc32(row.tobytes()) for row in recording.voltage]


def load_fit(path: str | os.PathLike[str]) -> RecordingFit:
    """Read a ``fit.json`` back.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: for a file that is damaged, not JSON, or not such a fit.
    """
    source = Path(path)
    with reading(source):
        require_file(source)
        return restored(source.read_bytes(), RecordingFit)
