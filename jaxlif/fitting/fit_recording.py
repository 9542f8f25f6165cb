"""From a recording to a model, in four steps: prepare, fit, judge, report."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxlif.checks import choice, whole
from jaxlif.files import require_memory
from jaxlif.fitting.bounds import STANDARD_NAMES, Bounds, checked_interval, named_leaves
from jaxlif.fitting.data import Data, Options, Outcome
from jaxlif.fitting.fit_json import PARAMS
from jaxlif.fitting.gif_recipe import fit_gif
from jaxlif.fitting.intervals import determined
from jaxlif.fitting.judgement import Judged, judge, regimes_of, spike_cut
from jaxlif.fitting.lif_recipe import fit_fluctuating, fit_passive, fit_steps
from jaxlif.fitting.notes import fit_notes
from jaxlif.fitting.other_recording import judged_by, require_test
from jaxlif.fitting.prepare import ADAPTIVE, Case, prepare
from jaxlif.fitting.result import RecordingFit, sweep_checksums
from jaxlif.fitting.verdict import WHY, measures
from jaxlif.neurons.lif import LIFParams
from jaxlif.neurons.mechanisms import Mechanism
from jaxlif.recordings import Electrode, Recording, SpikeRule
from jaxlif.recordings.electrode import electrode_from
from jaxlif.stages import stage, stages

AUTO, MODELS = "auto", tuple(PARAMS)
ALIASES = {"adaptive": "deterministic-gif"}
BYTES = {"lif": 100, "passive": 100, "deterministic-gif": 900, "gif": 900}  # of memory that a fit needs for a sample
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
    electrode: Electrode | Recording | float | str | None = "auto",
    test: Recording | None = None,
    coupling: bool | None = None,
    mechanisms: Sequence[Mechanism] = (),
    rest: str = "auto",
    drift: bool = False,
    window: tuple[float, float] | None = None,
    held_out: str | Sequence[int] | None = None,
    start: LIFParams | None = None,
    bounds: Bounds | None = None,
    spike_rule: SpikeRule = SpikeRule(),  # noqa: B008, a frozen value
    seed: int = 0,
    progress: bool = False,
) -> RecordingFit:
    """Fit a neuron to a recording.

    For "lif", a family of current steps is fitted by what is below threshold and by its spikes, any other current by
    voltage and spikes. What is not in ``window``, or is ``held_out``, is predicted and scored. All is in double
    precision but the adaptive neurons' likelihood.

    Args:
        recording: current and voltage.
        model: "auto", the better of the next two on what neither saw; "lif"; "gif", an adaptive neuron with escape
            noise; "deterministic-gif", the same without noise (alias "adaptive"); or "passive", the membrane alone,
            fitted to the sweeps without a spike.
        electrode: what is taken off the voltage: "auto" estimates an electrode for the adaptive neurons, from the
            recording's electrode trace or from itself, and none for the others; another recording to estimate it from,
            such as of subthreshold noise; an :class:`Electrode`; a series resistance, GΩ; or None.
        test: another recording of the cell, which is predicted and scored as ``scores["test_file"]``; of a fluctuating
            current all is then fitted by default.
        coupling: for adaptive neurons, whether the threshold follows the voltage; None lets unseen data decide.
        mechanisms: of an adaptive neuron in any case, each as it starts, such as an :class:`ACurrent` or your own;
            those that unseen data choose come on top.
        rest: for adaptive neurons: "auto" ties v_rest to the voltage before the stimulus, sweep by sweep, where every
            sweep starts with 100 ms without current; "fitted" leaves it free.
        drift: for adaptive neurons: each sweep has an offset of its resting potential and a gain of its current.
        window: the part of the time to fit, (start, stop) in ms; by default the first 70 % of a fluctuating current,
            and all where sweeps are held out. Adaptive neurons, and all on steps, are refitted to the whole recording
            once they have been scored; with ``window`` or ``held_out`` given they are not.
        held_out: sweeps to judge by instead of time: "stimulus:NAME", "repeat:NUMBER", "sweep:NUMBER" or their numbers;
            of a family of current steps by default every second one, of those that fire and of those that do not.
        start: where to start instead of from a regression, for a fluctuating current; t_ref and v_th are searched for
            over their bounds in any case.
        bounds: intervals that replace the default ones of the parameters named.
        spike_rule: how spikes are found where the recording does not hold them.
        seed: of the random starts.
        progress: show stages and progress bars on stderr.

    Returns:
        The :class:`RecordingFit`; ``jaxlif.simulate(fit.cell, fit.params, current)`` runs its neuron.

    Raises:
        ValueError: for another model, no voltage, no spikes, a current that does not vary, a window outside the
            recording, bounds that do not suit, an electrode whose resistance is not positive or differs tenfold between
            sweeps, or a test whose sweeps are to be fitted or whose current is a hundred times another.

    Example:
        >>> import jaxlif as jl
        >>> truth = LIFParams(v_th=-52.0, t_ref=3.0)
        >>> current = jl.stimulus.ornstein_uhlenbeck(jax.random.key(0), 180.0, 120.0, 5.0, 2000.0, 0.5)
        >>> _, output = jl.simulate(jl.LIF(dt=0.5), truth, current)
        >>> recording = Recording(current=current, voltage=output.v, dt=0.5, spikes=output.spikes)
        >>> result = fit_recording(recording)
        >>> [round(getattr(result.params, name), 1) for name in ("tau_m", "r_m", "v_th", "t_ref")]
        [10.0, 0.1, -52.0, 3.0]
    """
    model = check_options(model, start, bounds, rest, drift)
    if model == AUTO:
        own: dict[str, Any] = {"electrode": electrode, "test": test, "coupling": coupling, "rest": rest}
        own |= {"window": window, "held_out": held_out, "spike_rule": spike_rule}
        own |= {"drift": drift, "seed": seed, "progress": progress, "mechanisms": mechanisms}
        return choose_model(lambda model: fit_recording(recording, model, **own))
    asked = {"start": start, "coupling": choice("coupling", coupling, (None, True, False)), "drift": drift}
    asked |= {"bounds": limits(bounds, model), "seed": whole("seed", seed), "progress": progress}
    asked["mechanisms"] = _checked_mechanisms(mechanisms, model)
    _require_room(recording, model)
    spike_rule = spike_rule.found_in(recording)  # so that what is predicted is judged by it, too
    given: dict[str, Any] = {"window": window, "held_out": held_out, "rest": rest, "rule": spike_rule}
    with stages(progress), jax.enable_x64(True):
        stage("spikes and electrode")
        taken = electrode_from(electrode, spike_rule) if isinstance(electrode, Recording) else electrode
        if test is not None:
            require_test(recording, test, spike_rule)
        case = prepare(recording, model, electrode=taken, tested=test is not None, **given)
        options = Options(case.window, **asked)
        stage(f"fit of the {model}")
        found = _recipe(case, intervals=not case.refit)(case.fitted, options)
        last, final = _refit(case, found, options)
        stage("scores")
        judged = judge(case.with_drift(found.drift), found, last.with_drift(final.drift), final, options.seed)
        result = _report(last.with_drift(final.drift), options, found, final, judged, spike_rule)
        if isinstance(electrode, Recording):
            result = replace(result, beside={"electrode": {"name": electrode.name, "sha256": electrode.sha256}})
        return result if test is None else judged_by(result, test)


def _checked_mechanisms(mechanisms: Sequence[Mechanism], model: str) -> tuple[Mechanism, ...]:
    """Return what was given, each with its rules kept; a model that would pass over them is refused."""
    for i, mechanism in enumerate(mechanisms := tuple(mechanisms)):
        if not isinstance(mechanism, Mechanism):
            raise ValueError(f"mechanisms.{i} = {mechanism!r}: mechanisms must be Mechanisms, such as ACurrent()")
        mechanism.check_as(f"mechanisms.{i}")
    if mechanisms and model not in ADAPTIVE:
        kind = type(mechanisms[0]).__name__
        raise ValueError(f'mechanisms.0 = {kind}: model = "{model}" has none; "gif" and "deterministic-gif" have')
    return mechanisms


def _require_room(recording: Recording, model: str) -> None:
    if not isinstance(recording, Recording):
        raise ValueError(f"recording = {type(recording).__name__}: recording must be a Recording")
    size = recording.current.size
    require_memory(BYTES[model] * size, f'a fit of "{model}" to {size:.3g} samples')


def choose_model(fit: Callable[[str], RecordingFit]) -> RecordingFit:
    """Return the better of a LIF and a gif on what neither saw, and say which it is and why."""
    fits, failed = dict[str, RecordingFit](), dict[str, ValueError]()
    for model in ("gif", "lif"):
        try:
            fits[model] = fit(model)
        except ValueError as error:
            failed[model] = error
        if model in fits and "step_error" not in _unseen(fits[model]) and has_mechanisms(fits[model].params):
            return _said(fits[model], "gif rather than a plain LIF, for what it gains on unseen data")
    if len(failed) == 2:
        raise failed["lif"]
    if failed:
        (model,), (why,) = fits, failed.values()
        return _said(fits[model], f"{model}, as no other model could be fitted ({why})")
    errors = {model: _unseen(found).get("step_error", np.nan) for model, found in fits.items()}
    if not np.isfinite(list(errors.values())).all():
        return _said(fits["lif"], "lif: no further mechanism gains on unseen data")
    if not all("test" in found.scores for found in fits.values()):
        return _said(fits["lif"], "lif: too few steps to hold any out, by which to choose another")
    best, other = ("gif", "lif") if errors["gif"] < errors["lif"] else ("lif", "gif")  # of equals the simpler
    off = {m: f"{fits[m].scores['test']['spikes_per_step_rmse']:.2g} ({100.0 * errors[m]:.2g} %)" for m in fits}
    return _said(
        fits[best], f"{best} rather than {other}: {off[best]} spikes off in steps neither saw, not {off[other]}"
    )


def _unseen(fit: RecordingFit) -> dict[str, float]:
    """Return what a fit is judged by without its test file, which chooses nothing."""
    return measures(replace(fit, scores={name: x for name, x in fit.scores.items() if name != "test_file"}))


def _said(fit: RecordingFit, why: str) -> RecordingFit:
    return replace(fit, warnings=(*fit.warnings, f"{WHY}{why}"))


def has_mechanisms(params: Any) -> bool:
    """Say whether a neuron has more than a membrane, a threshold and noise."""
    own = ("eta", "gamma", "mechanisms", "coupling")
    return any(getattr(params, name, None) for name in own)


def _recipe(case: Case, *, intervals: bool) -> Callable[[Data, Options], Outcome]:
    if case.model in ADAPTIVE:
        return partial(fit_gif, deterministic=case.model != "gif", intervals=intervals)
    if case.model == "passive":
        return fit_passive
    return fit_steps if case.protocol == "steps" else fit_fluctuating


def _refit(case: Case, found: Outcome, options: Options) -> tuple[Case, Outcome]:
    """Fit the model to the whole recording where it is to be handed out so; return what was fitted, and the outcome."""
    if case.refit:
        stage(f"fit of the {case.model} to everything")
    last = case.complete() if case.refit and len(case.held) else case
    if case.refit and found.refit is not None:
        return last, found.refit(last.fitted, replace(options, window=case.data.whole))
    return (case, found) if last is case else (last, _recipe(last, intervals=True)(last.fitted, options))


def _report(
    case: Case, options: Options, found: Outcome, final: Outcome, judged: Judged, rule: SpikeRule
) -> RecordingFit:
    """Put together what is handed out."""
    own = {} if case.model in ADAPTIVE else {name: options.bounds[name] for name in named_leaves(final.params)}
    intervals, undetermined = determined(final.params, final.intervals, own)
    before, after = (steps * case.data.dt for steps in spike_cut(case.fitted, found))
    return RecordingFit(
        model=case.model,
        params=final.params,
        scored=None if final is found else found.params,
        bounds=own,
        intervals=intervals,
        undetermined=undetermined,
        uncertainty=final.uncertainty and final.uncertainty._replace(intervals=intervals, notes=()),
        scores=judged.scores,
        bits_per_spike=final.bits_per_spike,
        curve=final.curve,
        spike_cut=(before, after),
        drift=case.data.drift,
        regimes=regimes_of(case.fitted, case.window if final is found else case.data.whole),
        warnings=fit_notes(case, found, final, judged, own, undetermined),
        data=_described(case),
        window=case.window,
        held_out=tuple(int(s) for s in case.held),
        protocol=case.protocol,
        electrodes=case.electrodes,
        rest="fitted" if case.data.v_rest is None else "measured",
        spike_rule=rule,
        seed=options.seed,
    )


def _described(case: Case) -> dict[str, Any]:
    """Return what is kept of the recording: where it is from, its form, and checksums by which its sweeps are known."""
    recording = case.recording
    return {
        "name": recording.name,
        "sha256": recording.sha256,
        "corrections": dict(recording.corrections),
        "current_source": recording.current_source,
        "current_sampled": case.sampled,
        "dt_ms": recording.dt,
        "sweeps": recording.num_sweeps,
        "samples": recording.num_steps,
        "sweep_crc32": sweep_checksums(recording),
    }


def check_options(
    model: str,
    start: LIFParams | None = None,
    bounds: Bounds | None = None,
    rest: str = "auto",
    drift: bool = False,
) -> str:
    """Return the model's name, and refuse options of :func:`fit_recording` that suit no recording."""
    choice("drift", drift, (False, True))
    choice("rest", rest, ("auto", "fitted"))
    if not isinstance(model, str) or (model := ALIASES.get(model, model)) not in (AUTO, *MODELS):
        raise ValueError(f"model = {model!r}: the models that can be fitted are {AUTO}, {', '.join(MODELS)}")
    if (model != "lif" and start is not None) or (model in (AUTO, *ADAPTIVE) and bounds is not None):
        raise ValueError(f'model = "{model}" finds its own start and has no bounds: start and bounds are for "lif"')
    if drift and model not in (AUTO, *ADAPTIVE):
        raise ValueError(f'drift is for "gif" and "deterministic-gif": "{model}" has one membrane for all sweeps')
    limits(bounds, model)
    return model


def limits(bounds: Bounds | None, model: str = "lif") -> dict[str, tuple[float, float]]:
    """Return the bounds of all parameters: the given ones, checked, and the usual ones of the others."""
    found = BOUNDS | ({"v_rest": RESTING} if model == "passive" else {})
    for name, pair in (bounds or {}).items():
        if name not in BOUNDS:
            raise ValueError(f"bounds name {name!r}, which is no parameter; the parameters are {', '.join(BOUNDS)}")
        given, is_scale = checked_interval(name, pair), name in ("tau_m", "r_m", "t_ref")
        if not np.isfinite([given.low, given.high]).all() or (is_scale and given.low < 0.0):
            rule = "finite and not negative" if is_scale else "finite"
            raise ValueError(f"bounds[{name!r}] = {pair!r} {STANDARD_NAMES[name][1]}: both must be {rule}")
        found[name] = given.low, given.high
    if found["v_reset"][0] >= found["v_th"][1]:
        low, high = found["v_reset"][0], found["v_th"][1]
        raise ValueError(f"bounds leave v_reset >= {low:g} mV and v_th <= {high:g} mV: v_reset must be below v_th")
    return found
