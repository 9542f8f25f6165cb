"""From a recording to a model: the recipe, stage by stage.

Adaptive neurons: the electrode's drop is taken away, and the likelihood of spikes and voltage is maximised. Plain LIF,
fluctuating current: the membrane by regression and then by gradient under teacher forcing, the refractory period by
profile, the threshold in closed loop. Steps: the membrane from the smallest subthreshold sweeps, the rest from the f-I
curve.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxlif.checks import choice, numbers, whole
from jaxlif.files import require_memory
from jaxlif.fitting.bounds import Bounds, named_leaves
from jaxlif.fitting.data import Data, Drift, Options, with_spikes
from jaxlif.fitting.extrapolation import Regime, extrapolation_notes, regimes
from jaxlif.fitting.fluctuating import fit_fluctuating
from jaxlif.fitting.gif import fit_gif
from jaxlif.fitting.held_out import FITTED, default_split, held_out_sweeps
from jaxlif.fitting.intervals import determined
from jaxlif.fitting.judgement import free_run_notes, judge, rest_of_time, spike_cut
from jaxlif.fitting.ladder import Ladder, fit_ladder
from jaxlif.fitting.notes import (
    at_bounds,
    score_notes,
    undetermined_names,
    undetermined_times,
    unlikely_membrane,
)
from jaxlif.fitting.passive import fit_passive
from jaxlif.fitting.result import STANDARD_NAMES, RecordingFit, sweep_checksums
from jaxlif.fitting.scores import unreliable_notes
from jaxlif.fitting.step_protocol import fit_steps, has_deflections, has_fi_curve, no_fi_curve
from jaxlif.fitting.task import Outcome
from jaxlif.neurons.lif import LIFParams
from jaxlif.recordings import (
    Electrode,
    Recording,
    SpikeRule,
    notes_on,
    remove_electrode,
    resting_potentials,
)
from jaxlif.recordings.notes import rest_notes
from jaxlif.recordings.recording import require_stimulus
from jaxlif.recordings.sampling import copies, held_current, is_sampled, without_padding
from jaxlif.recordings.spikes import spike_notes

MODELS = ("lif", "adaptive", "gif", "passive")
WITH_BOUNDS = ("lif", "passive")  # the others find their own start, and have none
RESTS = ("auto", "fitted")
BYTES = {"lif": 100, "passive": 100, "adaptive": 900, "gif": 900}  # of memory that a fit needs for a sample
BOUNDS = {
    "tau_m": (0.5, 500.0),
    "r_m": (0.001, 10.0),
    "v_rest": (-120.0, -20.0),
    "v_th": (-110.0, 40.0),
    "v_reset": (-150.0, 30.0),
    "t_ref": (0.0, 50.0),
}


RESTING = (-150.0, 100.0)  # mV: without a spike the "cell" may be a model cell


def fit_recording(
    recording: Recording,
    model: str = "lif",
    *,
    electrode: Electrode | float | str | None = "auto",
    coupling: bool | None = None,
    rest: str = "auto",
    drift: bool = False,
    train: tuple[float, float] | None = None,
    held_out: str | Sequence[int] | None = None,
    start: LIFParams | None = None,
    bounds: Bounds | None = None,
    spike_rule: SpikeRule = SpikeRule(),  # noqa: B008, a frozen value
    seed: int = 0,
    progress: bool = False,
) -> RecordingFit:
    """Fit a neuron to a recording, in double precision.

    For "lif", a protocol of current steps is fitted by its subthreshold sweeps and its f-I curve, any other current by
    voltage and spikes. What is not in ``train``, or is ``held_out``, is predicted and scored.

    Args:
        recording: current and voltage.
        model: "lif"; "gif", an adaptive neuron with escape noise; "adaptive", its deterministic twin; or "passive", the
            membrane alone, fitted to the sweeps without a spike.
        electrode: what is taken off the voltage: "auto" estimates an electrode for "gif" and "adaptive", from the
            recording's electrode trace or from itself, and none for "lif"; an :class:`Electrode`; a series resistance,
            GΩ; or None.
        coupling: for adaptive neurons, whether the threshold follows the voltage; None lets held-out time decide.
        rest: for adaptive neurons: "auto" ties v_rest to the voltage before the stimulus, sweep by sweep, where every
            sweep starts with 100 ms without current; "fitted" leaves it free.
        drift: for adaptive neurons: each sweep has an offset of its resting potential and a gain of its current.
        train: the window to fit, (start, stop) in ms; by default the first 70 % of a fluctuating current, all of a
            step protocol (whose held-out score comes from every second current), and all where sweeps are held out. By
            default "gif" and "adaptive" are refitted to the whole recording once they have been scored; with ``train``
            or ``held_out`` given they are not.
        held_out: sweeps to judge by instead of time: "stimulus:NAME", "repeat:NUMBER", "sweep:NUMBER" or their numbers.
        start: where to start instead of from a regression, for a fluctuating current; t_ref and v_th are searched for
            over their bounds in any case.
        bounds: intervals that replace the default ones of the parameters named.
        spike_rule: how spikes are found where the recording does not hold them.
        seed: of the random starts.
        progress: show progress bars.

    Returns:
        The :class:`RecordingFit`.

    Raises:
        ValueError: for another model, no voltage, no spikes, a current that does not vary, a window outside the
            recording, or bounds that do not suit.

    Example:
        >>> import jaxlif as jl
        >>> truth = LIFParams(v_th=-52.0, t_ref=3.0)
        >>> current = 180.0 + np.asarray(jl.stimulus.ornstein_uhlenbeck(jax.random.key(0), 0.0, 120.0, 5.0, 3e3, 0.1))
        >>> _, output = jl.simulate(jl.LIF(dt=0.1), truth, current)
        >>> recording = Recording(current=current, voltage=output.v, dt=0.1, spikes=output.spikes)
        >>> result = fit_recording(recording)
        >>> [round(getattr(result.params, name), 2) for name in ("tau_m", "r_m", "v_th", "t_ref")]
        [10.0, 0.1, -52.0, 3.0]
    """
    check_options(model, start, bounds, rest, drift)
    if not isinstance(recording, Recording):
        raise ValueError(f"recording = {type(recording).__name__}: recording must be a Recording")
    choice("coupling", coupling, (None, True, False))
    seed = whole("seed", seed)
    size = recording.current.size
    require_memory(BYTES[model] * size, f'a fit of "{model}" to {size:.3g} samples')
    recording, padded = without_padding(recording)
    if model == "passive":
        recording, left = _without_spikes(recording, spike_rule, held_out)
        padded += left
    spikes = checked_spikes(recording, spike_rule, model)
    window, held, instead = _split(recording, spikes, model, train, held_out)
    kept = _kept(recording, held)
    removed = remove_electrode(recording, spikes, _electrode_choice(electrode, model))
    tied = resting_potentials(removed.recording, spikes) if model not in WITH_BOUNDS and rest == "auto" else None
    with jax.enable_x64(True):
        limits = _limits(bounds, model)
        part, sampled = recording.select(kept), is_sampled(recording, spikes)
        clean = held_current(removed.recording, sampled)
        protocol = _protocol(part, spikes[kept], model)
        everything = Data.of(clean, spikes, **_at_rest(tied, kept))
        options = Options(window, limits, start, coupling, drift, seed, progress)
        task, again = everything.select(kept), train is None and not len(held)
        found = _recipe(model, protocol, intervals=not again)(task, options)
        everything = _with_terms(everything, found, kept)
        task = everything.select(kept)
        scores, outside = _judged(everything, task, found, options, held, model)
        final, fitted = _on_everything(task, found, options, scores) if again else (found, options)
        astray = free_run_notes(task, final, fitted, kept, noisy=model == "gif")
    own = {name: limits[name] for name in named_leaves(final.params)} if model in WITH_BOUNDS else {}
    intervals, undetermined = determined(final.params, final.intervals, own)
    return RecordingFit(
        model=model,
        params=final.params,
        scored=None if final is found else found.params,
        scores=scores,
        bounds=own,
        train=options.window,
        protocol=protocol,
        spike_rule=spike_rule,
        spike_cut=tuple(n * recording.dt for n in spike_cut(task, found)),  # type: ignore[arg-type]
        data=_provenance(recording, sampled),
        seed=seed,
        warnings=astray
        + padded
        + notes_on(recording, spikes, spike_rule, held=held, compensated=removed.recording)
        + removed.notes
        + final.warnings
        + undetermined_names(undetermined)
        + (at_bounds(found.params, own) if own else undetermined_times(final.params))
        + unlikely_membrane(final.params)
        + (_unlike_steps(part, spikes[kept]) if model == "lif" and protocol == "fluctuating" else ())
        + instead
        + score_notes(task, scores)
        + (unreliable_notes(recording, spikes) if protocol == "fluctuating" else ())
        + outside,
        curve=found.curve,
        electrodes=removed.electrodes,
        intervals=intervals,
        undetermined=undetermined,
        uncertainty=final.uncertainty,
        held_out=tuple(int(s) for s in held),
        rest="fitted" if tied is None else "measured",
        drift=everything.drift,
        regimes=_regimes(task, fitted.window),
        bits_per_spike=final.bits_per_spike,
    )


def _kept(recording: Recording, held: np.ndarray) -> np.ndarray:
    """Return the sweeps to fit: those that are not held out, and of several copies of one trial the first."""
    others = np.setdiff1d(np.arange(recording.num_sweeps), held)
    return others[np.sort(np.unique(copies(recording)[others], return_index=True)[1])]


def _unlike_steps(recording: Recording, spikes: np.ndarray) -> tuple[str, ...]:
    """Say why steps were not fitted as such, and that a rest moves for which a fluctuating current has one value."""
    return no_fi_curve(recording, spikes) + rest_notes(recording, spikes)


def _judged(
    whole: Data, data: Data, found: Outcome, options: Options, held: np.ndarray, model: str
) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """Score what was fitted and what was held out, in time or as sweeps, and say what the latter are to the model."""
    rest = None if len(held) else rest_of_time(data, options.window)
    parts = {"train": options.window} | ({} if rest is None else {"test": rest})
    scores, _ = judge(data, found, options, parts, noisy=model == "gif")
    if not len(held):
        return scores, ()
    other = whole.select(held)
    everything = other.start, other.start + other.duration
    more, rates = judge(other, found, options, {"test": everything}, noisy=model == "gif")
    return scores | more, extrapolation_notes(_regimes(data, options.window), other, rates, held)


def _at_rest(rest: np.ndarray | None, kept: np.ndarray | slice) -> dict[str, Any]:
    """Return what measured rests make of v_rest, that of the sweeps to fit, and of the sweeps' own terms."""
    if rest is None:
        return {}
    v_rest = float(rest[kept].mean())
    return {"v_rest": v_rest, "drift": Drift.of_rest(rest, v_rest)}


def _regimes(data: Data, window: tuple[float, float]) -> tuple[Regime, ...]:
    part = data.window(*window)
    return regimes(part, part.spikes)


def _with_terms(whole: Data, found: Outcome, kept: np.ndarray) -> Data:
    """Return the data with the terms of all sweeps: the fitted ones, and for the others what their rest says."""
    if found.drift is None:
        return whole
    terms = Drift(whole.terms.offset.copy(), np.ones(whole.num_sweeps))
    terms.offset[kept], terms.gain[kept] = found.drift.offset, found.drift.gain
    return replace(whole, drift=terms)


def _on_everything(data: Data, found: Outcome, options: Options, scores: Mapping[str, Any]) -> tuple[Outcome, Options]:
    """Refit to the whole recording, once a fit to its first part has been scored on the rest."""
    if found.refit is None:
        return found, options
    everything = replace(options, window=(data.start, data.start + data.duration))
    final = found.refit(data, everything)
    fitted = f"{options.window[0]:g} to {options.window[1]:g} ms"
    note = f"the parameters are those of a refit to the whole recording, the scores those of a fit to {fitted} alone"
    return final._replace(warnings=((note,) if "test" in scores else ()) + final.warnings), everything


def model_ladder(
    recording: Recording,
    *,
    train: tuple[float, float] | None = None,
    electrode: Electrode | float | str | None = "auto",
    spike_rule: SpikeRule = SpikeRule(),  # noqa: B008, a frozen value
    progress: bool = False,
) -> Ladder:
    """Say which mechanisms a cell needs: from a plain neuron with escape noise up to a voltage-coupled threshold.

    Every rung is fitted to the first 80 % of the window, on three of the sweeps, and judged on the rest of it.

    Args:
        recording: current and voltage.
        train: the window, (start, stop) in ms; by default the first 70 %, as for :func:`fit_recording`.
        electrode: what is taken off the voltage, as for :func:`fit_recording`.
        spike_rule: how spikes are found where the recording does not hold them.
        progress: show progress bars.

    Returns:
        The :class:`jaxlif.fitting.ladder.Ladder`; print its ``sentence``.

    Raises:
        ValueError: as :func:`fit_recording`.
    """
    recording, _ = without_padding(recording)
    recording = recording.select(_kept(recording, np.zeros(0, int)))
    spikes = checked_spikes(recording, spike_rule)
    removed = remove_electrode(recording, spikes, electrode)
    window = _window(recording, train or default_split(recording, spikes)[0])
    tied = resting_potentials(removed.recording, spikes)
    clean = held_current(removed.recording, is_sampled(recording, spikes))
    data = Data.of(clean, spikes, **_at_rest(tied, slice(None)))
    return fit_ladder(with_spikes(data, window), progress=progress)


def check_options(
    model: str,
    start: LIFParams | None = None,
    bounds: Bounds | None = None,
    rest: str = "auto",
    drift: bool = False,
) -> None:
    """Refuse options of :func:`fit_recording` that suit no recording, with a ValueError."""
    choice("drift", drift, (False, True))
    if model not in MODELS:
        raise ValueError(f"model = {model!r}: the models that can be fitted are {', '.join(MODELS)}")
    if (model != "lif" and start is not None) or (model not in WITH_BOUNDS and bounds is not None):
        raise ValueError(f'model = "{model}" finds its own start and has no bounds: start and bounds are for "lif"')
    if rest not in RESTS:
        raise ValueError(f"rest = {rest!r}: it must be {' or '.join(RESTS)}")
    if drift and model in WITH_BOUNDS:
        raise ValueError(f'drift is for "gif" and "adaptive": "{model}" has one membrane for all sweeps')
    _limits(bounds)


def _electrode_choice(electrode: Electrode | float | str | None, model: str) -> Electrode | float | str | None:
    return (None if model in WITH_BOUNDS else "auto") if electrode == "auto" else electrode


def _recipe(model: str, protocol: str, intervals: bool) -> Callable[[Data, Options], Outcome]:
    if model == "passive":
        return fit_passive
    if model != "lif":
        return partial(fit_gif, deterministic=model == "adaptive", intervals=intervals)
    return fit_steps if protocol == "steps" else fit_fluctuating


def _without_spikes(
    recording: Recording, rule: SpikeRule, choice: str | Sequence[int] | None
) -> tuple[Recording, tuple[str, ...]]:
    """Return the sweeps of a recording that have no spike, and say which these are where others have some."""
    silent = np.flatnonzero(~rule.find(recording).any(axis=1))
    if len(silent) == recording.num_sweeps:
        return recording, ()
    if not len(silent):
        raise ValueError('model = "passive": every sweep has spikes; "lif" fits the membrane between them')
    if choice is not None:
        raise ValueError(f'held_out = {choice!r}: model = "passive" leaves sweeps with spikes out; choose the sweeps')
    return recording.select(silent), (f"fitted to the sweeps without a spike: {', '.join(map(str, silent))}",)


def checked_spikes(recording: Recording, rule: SpikeRule, model: str = "lif") -> np.ndarray:
    """Return the spikes of a recording that can be fitted; one without a stimulus or spikes is refused."""
    voltage = recording.measured_voltage()
    spikes = rule.find(recording)
    if not spikes.any() and model != "passive":
        never = (
            f"it never crosses {rule.threshold:g} mV upwards (its largest value is {voltage.max():.4g} mV); move the"
            " spike threshold, or give the recording's spikes"
        )
        why = spike_notes(recording, rule)
        reasons = why if voltage.max() >= rule.threshold and why else (never, *why)
        if recording.spikes is not None:
            reasons = ("the recording's own `spikes` are False in every sample; without them they are looked for",)
        raise ValueError(
            f"voltage has no spikes: {'; '.join(reasons)}; the membrane alone is fitted with `model` passive"
        )
    require_stimulus(recording, spikes)  # after the spikes: those that are not known hide what the current does
    return spikes


def _limits(bounds: Bounds | None, model: str = "lif") -> dict[str, tuple[float, float]]:
    names = [f.name for f in fields(LIFParams)]
    unknown = [name for name in bounds or {} if name not in names]
    if unknown:
        raise ValueError(f"bounds name {unknown[0]!r}, which is no parameter; the parameters are {', '.join(names)}")
    limits = (
        BOUNDS
        | ({"v_rest": RESTING} if model == "passive" else {})
        | {name: _interval(name, pair) for name, pair in (bounds or {}).items()}
    )
    if limits["v_reset"][0] >= limits["v_th"][1]:
        low, high = limits["v_reset"][0], limits["v_th"][1]
        raise ValueError(f"bounds leave v_reset >= {low:g} mV and v_th <= {high:g} mV: v_reset must be below v_th")
    return limits


def _interval(name: str, pair: Any) -> tuple[float, float]:
    """Return the bounds of a parameter, checked."""
    unit = STANDARD_NAMES[name][1]
    try:
        low, high = map(float, pair)
    except (TypeError, ValueError) as error:
        raise ValueError(f"bounds of {name} = {pair!r}: a pair (low, high) of numbers in {unit} is expected") from error
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(f"bounds of {name} = {low:g} to {high:g} {unit}: both must be finite, and low less than high")
    if name in ("tau_m", "r_m", "t_ref") and low < 0:
        raise ValueError(f"bounds of {name} = {low:g} to {high:g} {unit}: {name} cannot be negative")
    return low, high


def _protocol(recording: Recording, spikes: np.ndarray, model: str) -> str:
    steps = {"lif": has_fi_curve, "passive": has_deflections}.get(model)
    return "steps" if steps and steps(recording, spikes) else "fluctuating"


def _split(
    recording: Recording,
    spikes: np.ndarray,
    model: str,
    train: tuple[float, float] | None,
    choice: str | Sequence[int] | None,
) -> tuple[tuple[float, float], np.ndarray, tuple[str, ...]]:
    """Return the window to fit, the sweeps to hold out, and why these where nobody asked for them."""
    everything, held = (recording.start, recording.start + recording.duration), held_out_sweeps(recording, choice)
    kept = np.setdiff1d(np.arange(recording.num_sweeps), held)
    if train is not None:
        return _window(recording, train), held, ()
    if len(held) or _protocol(recording.select(kept), spikes[kept], model) == "steps":
        return everything, held, ()
    if model == "passive":
        return (recording.start, recording.start + FITTED * recording.duration), held, ()
    window, held = default_split(recording, spikes)
    if window != everything:
        return window, held, ()
    listed = f"of the sweeps {', '.join(map(str, held))}" if len(held) else "nothing"
    return window, held, (f"all spikes fall into one part of the time: held out instead of its end: {listed}",)


def _window(recording: Recording, train: tuple[float, float]) -> tuple[float, float]:
    end = recording.start + recording.duration
    pair = numbers("train", train, "ms", rank=1)
    if len(pair) != 2:
        raise ValueError(f"train = {train!r}: train must be a pair (start, stop), ms")
    first, last = map(float, pair)
    if not recording.start <= first < last <= end + 1e-6:
        raise ValueError(
            f"train = {first:g} to {last:g} ms: the window must lie inside the recording,"
            f" {recording.start:g} to {end:g} ms"
        )
    return first, min(last, end)


def _provenance(recording: Recording, sampled: bool) -> dict[str, Any]:
    return {
        "name": recording.name,
        "sha256": recording.sha256,
        "corrections": dict(recording.corrections),
        "current_source": recording.current_source,
        "current_sampled": sampled,
        "dt_ms": recording.dt,
        "sweeps": recording.num_sweeps,
        "samples": recording.num_steps,
        "sweep_crc32": sweep_checksums(recording),
    }
