"""From a recording to a model: the recipe, stage by stage.

Adaptive neurons: the electrode's drop is taken away, and the likelihood of spikes and voltage is maximised. Plain LIF,
fluctuating current: the membrane by regression and then by gradient under teacher forcing, the refractory period by
profile, the threshold in closed loop. Steps: the membrane from the smallest subthreshold sweeps, the rest from the f-I
curve.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any, cast

import jax
import numpy as np

from jaxlif.fitting.bounds import Bounds, coordinates
from jaxlif.fitting.fi_curve import curve_errors, fit_fi_curve, root_mean_square
from jaxlif.fitting.fluctuating import fit_fluctuating
from jaxlif.fitting.gif import fit_gif, recorded_traces
from jaxlif.fitting.ladder import Ladder, fit_ladder
from jaxlif.fitting.prediction import forced_response, free_response, noisy_rasters
from jaxlif.fitting.result import STANDARD_NAMES, RecordingFit, SpikeRule
from jaxlif.fitting.scores import SPIKE_TIME_SCORES, UNRELIABLE, spike_scores, voltage_scores
from jaxlif.fitting.step_protocol import fit_steps, has_fi_curve, no_fi_curve
from jaxlif.fitting.task import Outcome, Task
from jaxlif.losses import spike_mask
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.neurons.lif import LIFParams
from jaxlif.recordings import (
    Electrode,
    Recording,
    artefact_notes,
    detect_spikes,
    fi_table,
    remove_electrode,
    require_current_variation,
)

MODELS = ("lif", "adaptive", "gif")
MODEL_TRIALS = 128  # responses of a model with noise that are scored, over all sweeps
POOR = 0.5  # share of the variance of the fitted voltage below which the fit is doubted
BOUNDS = {
    "tau_m": (0.5, 500.0),
    "r_m": (0.001, 10.0),
    "v_rest": (-120.0, -20.0),
    "v_th": (-110.0, 40.0),
    "v_reset": (-150.0, 30.0),
    "t_ref": (0.0, 50.0),
}


def fit_recording(
    recording: Recording,
    model: str = "lif",
    *,
    electrode: Electrode | float | str | None = "auto",
    coupling: bool | None = None,
    train: tuple[float, float] | None = None,
    start: LIFParams | None = None,
    bounds: Bounds | None = None,
    spike_rule: SpikeRule = SpikeRule(),  # noqa: B008, a frozen value
    seed: int = 0,
    progress: bool = False,
) -> RecordingFit:
    """Fit a neuron to a recording, in double precision.

    For "lif", a protocol of current steps is fitted by its subthreshold sweeps and its f-I curve, any other current by
    voltage and spikes. What is not in ``train`` is predicted and scored.

    Args:
        recording: current and voltage.
        model: "lif"; "gif", an adaptive neuron with escape noise; or "adaptive", its deterministic twin.
        electrode: what is taken off the voltage: "auto" estimates an electrode for "gif" and "adaptive", from the
            recording's electrode trace or from itself, and none for "lif"; an :class:`Electrode`; a series resistance,
            GΩ; or None.
        coupling: for adaptive neurons, whether the threshold follows the voltage; None lets held-out time decide.
        train: the window to fit, (start, stop) in ms; by default the first 70 % of a fluctuating current, all of a
            step protocol (whose held-out score comes from every second current). By default "gif" and "adaptive" are
            refitted to the whole recording once they have been scored; with ``train`` given they are not.
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
    _check_options(model, start, bounds)
    spikes = _checked_spikes(recording, spike_rule)
    removed = remove_electrode(recording, spikes, _electrode_choice(electrode, model))
    with jax.enable_x64(True):
        limits = _limits(bounds)
        steps = model == "lif" and has_fi_curve(recording, spikes)
        protocol = "steps" if steps else "fluctuating"
        window = _window(recording, train, protocol)
        task = Task(removed.recording, spikes, window, limits, start, seed, progress)
        found = _recipe(model, protocol, coupling, intervals=train is not None)(task)
        scores = _scores(task, found, noisy=model == "gif")
        final = _on_everything(task, found, scores) if train is None else found
    return RecordingFit(
        model=model,
        params=final.params,
        scored=None if final is found else found.params,
        scores=scores,
        bounds=limits if model == "lif" else {},
        train=task.window,
        protocol=protocol,
        spike_rule=spike_rule,
        spike_cut=tuple(n * recording.dt for n in _spike_cut(task, found)),  # type: ignore[arg-type]
        data=_provenance(recording),
        seed=seed,
        warnings=removed.notes
        + final.warnings
        + (_at_bounds(found.params, limits) if model == "lif" else ())
        + _missed_spikes(task, spike_rule)
        + _saturated(recording, spikes)
        + artefact_notes(removed.recording, spikes)
        + (() if steps or model != "lif" else no_fi_curve(recording, spikes))
        + _warnings(task, scores),
        curve=found.curve,
        electrodes=removed.electrodes,
        intervals=final.intervals,
        uncertainty=final.uncertainty,
    )


def _on_everything(task: Task, found: Outcome, scores: Mapping[str, Any]) -> Outcome:
    """Refit to the whole recording, once a fit to its first part has been scored on the rest."""
    if found.refit is None:
        return found
    window = task.recording.start, task.recording.start + task.recording.duration
    final = found.refit(replace(task, window=window))
    fitted = f"{task.window[0]:g} to {task.window[1]:g} ms"
    note = f"the parameters are those of a refit to the whole recording, the scores those of a fit to {fitted} alone"
    return final._replace(warnings=((note,) if "test" in scores else ()) + final.warnings)


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
    spikes = _checked_spikes(recording, spike_rule)
    removed = remove_electrode(recording, spikes, electrode)
    window = _window(recording, train, "fluctuating")
    task = Task(removed.recording, spikes, window, {}, None, 0, progress)
    return fit_ladder(recorded_traces(task).few(), progress=progress)


def _check_options(model: str, start: LIFParams | None, bounds: Bounds | None) -> None:
    if model not in MODELS:
        raise ValueError(f"model = {model!r}: the models that can be fitted are {', '.join(MODELS)}")
    if model != "lif" and not (start is None and bounds is None):
        raise ValueError(f'model = "{model}" finds its own start and has no bounds: start and bounds are for "lif"')


def _electrode_choice(electrode: Electrode | float | str | None, model: str) -> Electrode | float | str | None:
    return (None if model == "lif" else "auto") if electrode == "auto" else electrode


def _recipe(model: str, protocol: str, coupling: bool | None, intervals: bool) -> Callable[[Task], Outcome]:
    if model != "lif":
        return partial(fit_gif, coupling=coupling, deterministic=model == "adaptive", intervals=intervals)
    return fit_steps if protocol == "steps" else fit_fluctuating


def _spike_cut(task: Task, found: Outcome) -> tuple[int, int]:
    return found.spike_cut or (task.before_spike, task.spike_length)


def fit_rates(
    currents: np.ndarray,
    rates: np.ndarray,
    membrane: LIFParams,
    *,
    free_tau_m: bool = False,
    name: str = "",
    sha256: str = "",
    seed: int = 0,
) -> RecordingFit:
    """Fit a neuron to target firing rates, in double precision.

    Rates determine the rheobase, the refractory period and the curve's shape; r_m and v_rest are taken from the
    membrane given, tau_m too unless it is freed.

    Args:
        currents: [K], pA.
        rates: [K], Hz.
        membrane: tau_m, r_m and v_rest.
        free_tau_m: fit tau_m as well.
        name: where the rates come from.
        sha256: checksum of that file.
        seed: of the random starts.

    Returns:
        A :class:`RecordingFit` with the protocol "rates".

    Raises:
        ValueError: for shapes that differ, fewer than three currents, or rates that are not finite, negative or all 0.

    Example:
        >>> from jaxlif import theory
        >>> currents = np.linspace(0.0, 600.0, 13)
        >>> result = fit_rates(currents, np.asarray(theory.firing_rate(LIFParams(t_ref=2.0), currents)), LIFParams())
        >>> round(result.params.t_ref, 4)
        2.0
    """
    within = {name: BOUNDS[name] for name in ("tau_m", "r_m", "v_rest")}
    coordinates(membrane, within)
    order = np.argsort(currents, kind="stable") if np.ndim(currents) == 1 else slice(None)
    currents, rates = np.asarray(currents, float)[order], np.asarray(rates, float)[order]
    with jax.enable_x64(True):
        free = BOUNDS["tau_m"] if free_tau_m else None
        fitted = fit_fi_curve(membrane, currents, rates, tau_m_bounds=free, seed=seed)
    curve = fitted.table(currents, rates)
    return RecordingFit(
        model="lif",
        params=fitted.params,
        scores={"f_i": curve_errors(curve)},
        bounds={n: BOUNDS[n] for n in ("v_th", "v_reset", "t_ref") + ("tau_m",) * free_tau_m},
        train=(0.0, 0.0),
        protocol="rates",
        spike_rule=SpikeRule(),
        spike_cut=(0.0, 0.0),
        data={"name": name, "sha256": sha256},
        seed=seed,
        warnings=("r_m and v_rest were given, not fitted: firing rates do not determine them",) + _poor_curve(curve),
        curve=curve,
    )


def _poor_curve(curve: Mapping[str, list[float]]) -> tuple[str, ...]:
    error, mean = curve_errors(curve)["rmse"], float(np.mean(curve["rate_Hz"]))
    if error <= 0.3 * mean:
        return ()
    return (f"the fitted curve is {error:.3g} Hz off where the mean rate is {mean:.3g} Hz: these are no LIF's rates",)


def _checked_spikes(recording: Recording, rule: SpikeRule) -> np.ndarray:
    voltage = recording.measured_voltage()
    require_current_variation(recording)
    spikes = rule.find(recording)
    if not spikes.any():
        raise ValueError(
            f"voltage has no spikes: it never crosses {rule.threshold:g} mV upwards (its largest value is"
            f" {voltage.max():.4g} mV); lower the spike threshold, or give the recording's spikes"
        )
    return spikes


def _limits(bounds: Bounds | None) -> dict[str, tuple[float, float]]:
    names = [f.name for f in fields(LIFParams)]
    unknown = [name for name in bounds or {} if name not in names]
    if unknown:
        raise ValueError(f"bounds name {unknown[0]!r}, which is no parameter; the parameters are {', '.join(names)}")
    limits = BOUNDS | {name: _interval(name, pair) for name, pair in (bounds or {}).items()}
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


def _window(recording: Recording, train: tuple[float, float] | None, protocol: str) -> tuple[float, float]:
    end = recording.start + recording.duration
    if train is None:
        return recording.start, end if protocol == "steps" else recording.start + 0.7 * recording.duration
    first, last = map(float, train)
    if not recording.start <= first < last <= end + 1e-6:
        raise ValueError(
            f"train = {first:g} to {last:g} ms: the window must lie inside the recording,"
            f" {recording.start:g} to {end:g} ms"
        )
    return first, min(last, end)


def _scores(task: Task, found: Outcome, *, noisy: bool) -> dict[str, dict[str, Any]]:
    """Score free-running spikes in the window and, where something is left, outside it; and the fitted voltage."""
    model = _model_spikes(task, found, noisy)
    voltage = forced_response(found.params, task.recording, task.spikes).voltage
    parts = {"train": task.window} | ({"test": rest} if (rest := _rest(task)) else {})
    scores = {name: _spike_scores(task, window, model) for name, window in parts.items()}
    if found.curve:
        # Under constant current spike times drift apart however good the rates are: a coincidence says nothing.
        for score in scores.values():
            score.update(dict.fromkeys(SPIKE_TIME_SCORES))
        # Above threshold the voltage of a step protocol is the spike mechanism's, not the membrane's.
        fitted = task.window[0], found.curve["epoch_ms"][1]
        return scores | {
            "membrane": _voltage_scores(task, fitted, voltage, found),
            "f_i": _curve_scores(task, found.curve, model),
        }
    return {name: score | _voltage_scores(task, parts[name], voltage, found) for name, score in scores.items()}


def _model_spikes(task: Task, found: Outcome, noisy: bool) -> np.ndarray:
    """Return the model's spikes [sweeps, T], or, of a model with noise, [repeats, sweeps, T]."""
    if not noisy:
        return free_response(found.params, task.recording).spikes
    count = max(1, MODEL_TRIALS // task.recording.num_sweeps)
    return noisy_rasters(cast(AdaptiveLIFParams, found.params), task.recording, repeats=count, seed=task.seed)


def _rest(task: Task) -> tuple[float, float] | None:
    """Return the longer of what lies after and before the window, unless both are shorter than 100 ms."""
    begin, end = task.recording.start, task.recording.start + task.recording.duration
    rests = [(task.window[1], end), (begin, task.window[0])]
    longest = max(rests, key=lambda rest: rest[1] - rest[0])
    return longest if longest[1] - longest[0] >= 100.0 else None


def _spike_scores(task: Task, window: tuple[float, float], model: np.ndarray) -> dict[str, Any]:
    samples = np.s_[:, task.samples(window)]
    scores = spike_scores(task.recording.window(*window), task.spikes[samples], model[..., task.samples(window)])
    return {"start_ms": window[0], "stop_ms": window[1]} | scores


def _voltage_scores(task: Task, window: tuple[float, float], voltage: np.ndarray, found: Outcome) -> dict[str, Any]:
    samples, chosen = task.samples(window), found.fitted_sweeps
    before, after = _spike_cut(task, found)
    part = task.recording.window(*window).select(chosen)
    spikes, predicted = task.spikes[chosen][:, samples], voltage[chosen][:, samples]
    return voltage_scores(part, spikes, predicted, before=before, after=after)


def _curve_scores(task: Task, curve: dict[str, list[float]], model: np.ndarray) -> dict[str, float]:
    """Return root mean square errors of the f-I curve, Hz: fitted, predicted, and counted in a simulation."""
    window = task.recording.window(*task.window)
    simulated = fi_table(window, model[:, task.samples(task.window)]).rates
    return curve_errors(curve) | {"rmse_simulated": root_mean_square(simulated, curve["rate_Hz"])}


def _at_bounds(params: LIFParams, limits: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """Say which parameters ended at or outside their bounds: those are not estimates."""
    notes = []
    for name, (low, high) in limits.items():
        value, unit = float(getattr(params, name)), STANDARD_NAMES[name][1]
        inside = low + _margin(low, high, low) < value < high - _margin(low, high, high)
        if not inside and not (name == "t_ref" and low == 0.0 and value < 0.5 * high):
            where = "at the end of" if low <= value <= high else "outside"
            notes.append(f"{name} = {value:.4g} {unit} lies {where} its bounds, {low:g} to {high:g} {unit}")
    return tuple(notes)


def _margin(low: float, high: float, end: float) -> float:
    return min(1e-3 * (high - low), 0.05 * abs(end)) if end else 1e-3 * (high - low)


def _missed_spikes(task: Task, rule: SpikeRule) -> tuple[str, ...]:
    """Warn of fast rises that end a little below the level that counts as a spike."""
    if task.recording.spikes is not None:
        return ()
    lower = rule.threshold - 20.0
    steep = detect_spikes(task.recording.measured_voltage(), task.recording.dt, method="dvdt", threshold=lower)
    missed = int(steep.sum()) - int(task.spikes.sum())
    if missed <= max(1, 0.05 * task.spikes.sum()):
        return ()
    return (
        f"{missed} steep rises end between {lower:g} and {rule.threshold:g} mV and are not counted as spikes:"
        " lower the spike threshold if they are",
    )


def _saturated(recording: Recording, spikes: np.ndarray) -> tuple[str, ...]:
    """Warn of a voltage that stays exactly at its extreme away from spikes: an amplifier or a converter at its end."""
    mask = spike_mask(spikes.T, before=round(5.0 / recording.dt), after=round(50.0 / recording.dt)).T
    v = recording.measured_voltage()[mask]
    if v.size < 100 or np.ptp(v) == 0:
        return ()
    shares = {float(end): float(np.mean(v == end)) for end in (v.min(), v.max())}
    return tuple(
        f"{100.0 * share:.2g} % of the voltage away from spikes is exactly {end:.4g} mV: is it saturated or clipped?"
        for end, share in shares.items()
        if share > 0.005
    )


def _warnings(task: Task, scores: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Say what the scores do not say by themselves."""
    notes = []
    if task.recording.current_source == "commanded":
        notes.append("the current is the command, not a measurement: what the amplifier did not deliver is not seen")
    if "test" not in scores and "f_i" not in scores:
        notes.append("nothing was held out: the scores are those of the data that were fitted")
    explained = scores.get("membrane", scores["train"])["voltage_variance_explained"]
    if explained is None or explained < POOR:
        notes.append(
            f"the membrane explains only {100.0 * max(explained or 0.0, 0.0):.0f} % of the variance of the voltage that"
            " it was fitted to: current and voltage may not belong together, or one membrane does not describe all"
            " sweeps"
        )
    judged = scores.get("test", scores["train"])
    lowest = scores["train"]["lowest_reliability"]
    own, data, model = judged["reliability"], judged["rate_data"], judged["rate_model"]
    if own is not None and own < UNRELIABLE:
        notes.append(f"the cell's own reliability is {own:.2f}, under {UNRELIABLE:g}: its spike times say little")
    elif lowest is not None and lowest < UNRELIABLE:
        notes.append(
            f"for some stimulus the cell's reliability is {lowest:.2f}, under {UNRELIABLE:g}: there its spike times"
            " say little"
        )
    if "f_i" not in scores and not 0.5 <= model / max(data, 1e-9) <= 2.0:
        notes.append(f"the model fires at {model:.3g} Hz where the cell fires at {data:.3g} Hz")
    return tuple(notes)


def _provenance(recording: Recording) -> dict[str, Any]:
    return {
        "name": recording.name,
        "sha256": recording.sha256,
        "current_source": recording.current_source,
        "dt_ms": recording.dt,
        "sweeps": recording.num_sweeps,
        "samples": recording.num_steps,
    }
