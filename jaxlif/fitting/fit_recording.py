"""From a recording to a model, in four steps: prepare, fit, judge, report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxlif.checks import choice, whole
from jaxlif.files import require_memory
from jaxlif.fitting.bounds import STANDARD_NAMES, Bounds, named_leaves
from jaxlif.fitting.data import Data, Options, Outcome
from jaxlif.fitting.gif_recipe import fit_gif
from jaxlif.fitting.intervals import determined
from jaxlif.fitting.judgement import Judged, judge, regimes_of, spike_cut
from jaxlif.fitting.lif_recipe import fit_fluctuating, fit_passive, fit_steps
from jaxlif.fitting.notes import fit_notes
from jaxlif.fitting.prepare import ADAPTIVE, Case, prepare
from jaxlif.fitting.result import RecordingFit, sweep_checksums
from jaxlif.neurons.lif import LIFParams
from jaxlif.recordings import Electrode, Recording, SpikeRule

MODELS = ("lif", "gif", "deterministic-gif", "passive")
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
    electrode: Electrode | float | str | None = "auto",
    coupling: bool | None = None,
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

    For "lif", a protocol of current steps is fitted by its subthreshold sweeps and its f-I curve, any other current by
    voltage and spikes. What is not in ``window``, or is ``held_out``, is predicted and scored. All is in double
    precision but the gradient of the adaptive neurons' likelihood.

    Args:
        recording: current and voltage.
        model: "lif"; "gif", an adaptive neuron with escape noise; "deterministic-gif", the same without noise (alias
            "adaptive"); or "passive", the membrane alone, fitted to the sweeps without a spike.
        electrode: what is taken off the voltage: "auto" estimates an electrode for the adaptive neurons, from the
            recording's electrode trace or from itself, and none for the others; an :class:`Electrode`; a series
            resistance, GΩ; or None.
        coupling: for adaptive neurons, whether the threshold follows the voltage; None lets held-out time decide.
        rest: for adaptive neurons: "auto" ties v_rest to the voltage before the stimulus, sweep by sweep, where every
            sweep starts with 100 ms without current; "fitted" leaves it free.
        drift: for adaptive neurons: each sweep has an offset of its resting potential and a gain of its current.
        window: the part of the time to fit, (start, stop) in ms; by default the first 70 % of a fluctuating current,
            all of a step protocol (whose held-out score comes from every second current), and all where sweeps are held
            out. By default adaptive neurons are refitted to the whole recording once they have been scored; with
            ``window`` or ``held_out`` given they are not.
        held_out: sweeps to judge by instead of time: "stimulus:NAME", "repeat:NUMBER", "sweep:NUMBER" or their numbers.
        start: where to start instead of from a regression, for a fluctuating current; t_ref and v_th are searched for
            over their bounds in any case.
        bounds: intervals that replace the default ones of the parameters named.
        spike_rule: how spikes are found where the recording does not hold them.
        seed: of the random starts.
        progress: show progress bars.

    Returns:
        The :class:`RecordingFit`; ``jaxlif.simulate(fit.cell, fit.params, current)`` runs its neuron.

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
    model = check_options(model, start, bounds, rest, drift)
    asked = {"start": start, "coupling": choice("coupling", coupling, (None, True, False)), "drift": drift}
    asked |= {"bounds": limits(bounds, model), "seed": whole("seed", seed), "progress": progress}
    _require_room(recording, model)
    with jax.enable_x64(True):
        case = prepare(
            recording, model, window=window, held_out=held_out, electrode=electrode, rest=rest, rule=spike_rule
        )
        options = Options(case.window, **asked)
        found, final = _fit(case, options)
        case = case.with_drift(found.drift)
        judged = judge(case, found, final, options.seed)
        return _report(case, options, found, final, judged, spike_rule)


def _fit(case: Case, options: Options) -> tuple[Outcome, Outcome]:
    """Fit the model to the window, and to the whole recording where it is to be handed out so."""
    found = _recipe(case)(case.fitted, options)
    if found.refit is None or not case.refit:
        return found, found
    return found, found.refit(case.fitted, replace(options, window=case.data.whole))


def _recipe(case: Case) -> Callable[[Data, Options], Outcome]:
    if case.model in ADAPTIVE:
        return partial(fit_gif, deterministic=case.model != "gif", intervals=not case.refit)
    if case.model == "passive":
        return fit_passive
    return fit_steps if case.protocol == "steps" else fit_fluctuating


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
        curve=found.curve,
        spike_cut=(before, after),
        drift=case.data.drift,
        regimes=regimes_of(case.fitted, case.window if final is found else case.data.whole),
        warnings=fit_notes(case, found, final, judged, own, undetermined),
        **_asked(case, options, rule),
    )


def _asked(case: Case, options: Options, rule: SpikeRule) -> dict[str, Any]:
    """Return what was asked for, and of which data."""
    recording = case.recording
    data: dict[str, Any] = {
        "name": recording.name,
        "sha256": recording.sha256,
        "corrections": dict(recording.corrections),
    }
    data |= {"current_source": recording.current_source, "current_sampled": case.sampled, "dt_ms": recording.dt}
    data |= {"sweeps": recording.num_sweeps, "samples": recording.num_steps, "sweep_crc32": sweep_checksums(recording)}
    return {
        "data": data,
        "window": case.window,
        "held_out": tuple(int(s) for s in case.held),
        "protocol": case.protocol,
        "electrodes": case.electrodes,
        "rest": "fitted" if case.data.v_rest is None else "measured",
        "spike_rule": rule,
        "seed": options.seed,
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
    if not isinstance(model, str) or (model := ALIASES.get(model, model)) not in MODELS:
        raise ValueError(f"model = {model!r}: the models that can be fitted are {', '.join(MODELS)}")
    if (model != "lif" and start is not None) or (model in ADAPTIVE and bounds is not None):
        raise ValueError(f'model = "{model}" finds its own start and has no bounds: start and bounds are for "lif"')
    if drift and model not in ADAPTIVE:
        raise ValueError(f'drift is for "gif" and "deterministic-gif": "{model}" has one membrane for all sweeps')
    limits(bounds, model)
    return model


def _require_room(recording: Recording, model: str) -> None:
    if not isinstance(recording, Recording):
        raise ValueError(f"recording = {type(recording).__name__}: recording must be a Recording")
    size = recording.current.size
    require_memory(BYTES[model] * size, f'a fit of "{model}" to {size:.3g} samples')


def limits(bounds: Bounds | None, model: str = "lif") -> dict[str, tuple[float, float]]:
    """Return the bounds of all parameters: the given ones, checked, and the usual ones of the others."""
    names = [f.name for f in fields(LIFParams)]
    unknown = [name for name in bounds or {} if name not in names]
    if unknown:
        raise ValueError(f"bounds name {unknown[0]!r}, which is no parameter; the parameters are {', '.join(names)}")
    usual: Mapping[str, tuple[float, float]] = BOUNDS | ({"v_rest": RESTING} if model == "passive" else {})
    found = dict(usual) | {name: _interval(name, pair) for name, pair in (bounds or {}).items()}
    if found["v_reset"][0] >= found["v_th"][1]:
        low, high = found["v_reset"][0], found["v_th"][1]
        raise ValueError(f"bounds leave v_reset >= {low:g} mV and v_th <= {high:g} mV: v_reset must be below v_th")
    return found


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
