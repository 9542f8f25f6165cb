"""The command line: fit, ladder, advise, predict, simulate, fi and export."""

import io
import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import wraps
from pathlib import Path
from typing import Any

import click
import jax
import numpy as np

from jaxlif.arguments import bounds_of, electrode_of, number, stimulus_of, sweep_numbers, window_of
from jaxlif.exporting import exported
from jaxlif.fitting.advisor import advise_protocol
from jaxlif.fitting.recordings import fit_rates, fit_recording, model_ladder
from jaxlif.fitting.result import Prediction, RecordingFit, SpikeRule, load_fit, write_atomically
from jaxlif.fitting.scores import spike_scores, voltage_scores
from jaxlif.neurons.lif import LIF, LIFParams
from jaxlif.recordings import Recording, read_rates, read_recording
from jaxlif.simulate import simulate as run
from jaxlif.simulated import simulated_recording
from jaxlif.tables import Scores, parameter_rows, score_rows, text_table


class BadInput(click.ClickException):
    """One line on what is wrong, and exit status 2."""

    exit_code = 2


def _clear_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what a user can cause into one line and exit status 2, and show warnings as one line each."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            with _noted_warnings() as notes:
                command(*args, **kwargs)
        except BrokenPipeError:
            raise  # whoever read our output has gone: nothing to explain
        except (ValueError, OSError, ImportError) as error:
            raise BadInput(" ".join(str(error).split())) from error
        for note in notes:
            click.echo(f"warning: {note}", err=True)

    return wrapped


@contextmanager
def _noted_warnings() -> Iterator[list[str]]:
    """Collect the warnings of a block as lines of text."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield notes
    notes.extend(dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning)))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="jaxlif")
@click.option(
    "--cache/--no-cache",
    default=True,
    show_default=True,
    help="Keep compiled code for the next run: in JAX_COMPILATION_CACHE_DIR, or else the folder jaxlif under the"
    " user's cache folder ($XDG_CACHE_HOME or ~/.cache, ~/Library/Caches, %LOCALAPPDATA%), which may be deleted.",
)
def main(cache) -> None:
    """Leaky integrate-and-fire neurons, fitted to recordings.

    Recordings are .npz (arrays current in pA, voltage in mV, dt in ms), .csv (a header that names units, such as
    time_ms,current_pA,voltage_mV), .abf, .nwb or .ibw files. Everything is in ms, mV, pA, GΩ, pF and nS; rates in Hz.
    """
    if not cache:
        return
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(_cache_folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)


def _cache_folder() -> Path:
    """Return where compiled code is kept: by machine, since it is made for its processor."""
    home, variable = {
        "win32": (Path.home() / "AppData" / "Local", "LOCALAPPDATA"),
        "darwin": (Path.home() / "Library" / "Caches", ""),
    }.get(sys.platform, (Path.home() / ".cache", "XDG_CACHE_HOME"))
    return Path(os.environ.get(variable) or home) / "jaxlif" / f"compiled-{platform.node()}"


_recording = click.argument("file", type=click.Path(path_type=Path))
_sweeps = click.option("--sweeps", metavar="N,N-N", help="Which sweeps to read, numbered from 0. Default: all.")
_source = click.option(
    "--from-electrode",
    metavar="NAME",
    help="Which electrode of an .nwb file, or voltage channel of an .abf file, to read where there are several.",
)
_seed = click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of everything random."
)
_current = click.option(
    "--current",
    type=click.Choice(["recorded", "commanded"]),
    help="Which current to take from an .abf file; by default the recorded one where there is one.",
)


@main.command()
@_recording
@click.option(
    "--model",
    default="lif",
    show_default=True,
    help='The neuron to fit: "lif"; "gif", adaptive with escape noise; or "adaptive", its deterministic twin.',
)
@click.option(
    "--electrode",
    default="auto",
    show_default=True,
    help='What is taken off the voltage: "auto" (an estimated electrode, for gif and adaptive), "none", or a series'
    " resistance in GΩ.",
)
@click.option(
    "--coupling/--no-coupling",
    default=None,
    help="Whether the threshold of gif and adaptive follows the voltage. Default: held-out time decides.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for fit.json, report and figures.")
@click.option(
    "--train",
    metavar="A:B",
    help="Window to fit, in seconds or with a unit: 0:10, 0:10s, 0:10000ms. The rest is predicted and scored. An end"
    " past the last second of the recording is read as ms, if the window then has 100 ms. Default: the first 70 %; all"
    " of a step protocol.",
)
@_seed
@_current
@_sweeps
@_source
@click.option("--spike-threshold", type=float, default=0.0, show_default=True, help="Level that a spike crosses, mV.")
@click.option(
    "--spike-method",
    type=click.Choice(["level", "dvdt"]),
    default="level",
    show_default=True,
    help="A spike is where the voltage crosses the level, or the foot from which it rises to it at 20 mV/ms.",
)
@click.option(
    "--bounds",
    multiple=True,
    metavar="NAME=LOW:HIGH",
    help="Interval of a parameter in its unit, such as tau_m=5:40; may be given several times.",
)
@_clear_errors
def fit(
    file,
    model,
    electrode,
    coupling,
    out,
    train,
    seed,
    current,
    sweeps,
    from_electrode,
    spike_threshold,
    spike_method,
    bounds,
) -> None:
    """Fit a neuron to a recording.

    Steps of current are fitted by their subthreshold sweeps and their f-I curve, any other current by the voltage with
    resets at the recorded spikes, and a threshold chosen in closed loop. Prints the parameters and the scores and
    writes OUT/fit.json, OUT/report.html and the figures.

    \b
    Examples:
      jaxlif fit cell.abf --out out/
      jaxlif fit noise.npz --train 0:10 --out out/
      jaxlif fit noise.npz --model gif --out out/
    """
    _require_folder(out)
    with _noted_warnings() as notes:
        recording = _read(file, current, sweeps, from_electrode)
        result = fit_recording(
            recording,
            model,
            electrode=electrode_of(electrode),
            coupling=coupling,
            train=window_of(train, recording) if train else None,
            bounds=bounds_of(bounds) or None,
            spike_rule=SpikeRule(spike_method, spike_threshold),
            seed=seed,
            progress=sys.stderr.isatty(),
        )
    result = replace(result, warnings=tuple(notes) + result.warnings)
    _finish(result, out, recording)


@main.command()
@_recording
@click.option("--train", metavar="A:B", help="Window to use, as for fit. Default: the first 70 %.")
@_current
@_sweeps
@_source
@_clear_errors
def ladder(file, train, current, sweeps, from_electrode) -> None:
    """Say which mechanisms a cell needs.

    Fits a plain neuron with escape noise, then adds refractoriness, spike-triggered currents, a threshold that moves at
    spikes and one that follows the voltage, and prints what each is worth on held-out time, in bits per spike.
    """
    recording = _read(file, current, sweeps, from_electrode)
    window = window_of(train, recording) if train else None
    found = model_ladder(recording, train=window, progress=sys.stderr.isatty())
    rows = [(rung.name, f"{rung.held_out:.3f}", f"{rung.gain:+.3f}") for rung in found.rungs]
    click.echo(text_table([("model, each with the ones above it", "held out (bits per spike)", "gain"), *rows]) + "\n")
    click.echo(found.sentence)


@main.command()
@click.argument("fit_file", metavar="FIT", type=click.Path(path_type=Path))
@click.option(
    "--for", "names", multiple=True, metavar="NAME", help="Rank by this parameter; may be given several times."
)
@click.option("--duration", type=float, help="Of the further recording, s. Default: as long as the fitted one.")
@_seed
@_clear_errors
def advise(fit_file, names, duration, seed) -> None:
    """Say which recording to make next.

    FIT is a fit.json of --model gif. Prints what further recordings would leave of the 95 % intervals: 0.5 is half as
    wide, * marks the best for a parameter. The recordings are listed below, the most helpful first, each with what it
    leaves on the geometric mean.
    """
    result = load_fit(fit_file)
    length = None if duration is None else 1000.0 * duration
    advice = advise_protocol(result, parameters=names or None, duration=length, seed=seed)
    click.echo(text_table(advice.rows()) + "\n")
    click.echo("\n".join(advice.legend()))


@main.command()
@click.argument("fit_file", metavar="FIT", type=click.Path(path_type=Path))
@_recording
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The .npz file to write.")
@click.option("--repeats", type=int, default=1, show_default=True, help="Presentations of each sweep.")
@_seed
@_current
@_sweeps
@_source
@click.option("--force-spikes", is_flag=True, help="Reset at the recorded spikes instead of the model's own.")
@_clear_errors
def predict(fit_file, file, out, repeats, seed, current, sweeps, from_electrode, force_spikes) -> None:
    """Predict the response to the current of a recording.

    FIT is a fit.json. Writes spike_time (ms), spike_repeat, spike_sweep and voltage [sweeps, T] (mV) to an .npz file,
    and prints scores where FILE has a voltage to compare with.
    """
    if out.suffix != ".npz":
        raise ValueError(f"out = {out}: predictions are written to an .npz file")
    result, recording = load_fit(fit_file), _read(file, current, sweeps, from_electrode)
    prediction = result.predict(recording, repeats=repeats, seed=seed, force_spikes=force_spikes)
    _write_npz(out, prediction._asdict())
    click.echo(f"{len(prediction.spike_time)} spikes in {recording.num_sweeps * repeats} responses: {out}")
    if recording.voltage is not None:
        _echo_scores(_compare(result, recording, prediction, forced=force_spikes))


@main.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The .npz recording to write.")
@click.option("--model", type=click.Choice(["lif", "hodgkin-huxley"]), default="lif", show_default=True)
@click.option("--fit", "fit_file", type=click.Path(path_type=Path), help="Take the LIF from this fit.json.")
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="A parameter of the LIF, such as tau_m=20.")
@click.option(
    "--stimulus",
    show_default="noise:200:150:5",
    help="step:AMPLITUDE:START:STOP, ramp:FROM:TO, sine:MEAN:AMPLITUDE:HZ or noise:MEAN:SD:TAU; pA, ms and Hz."
    " The Hodgkin-Huxley neuron always receives frozen noise and has noise of its own.",
)
@click.option("--duration", type=float, default=6000.0, show_default=True, help="Of a sweep, ms.")
@click.option("--dt", type=float, default=0.1, show_default=True, help="Sampling interval, ms.")
@click.option("--repeats", type=int, default=5, show_default=True, help="Sweeps of the same current.")
@_seed
@_clear_errors
def simulate(out, model, fit_file, changes, stimulus, duration, dt, repeats, seed) -> None:
    """Simulate a recording.

    Writes current, voltage, dt and, for the LIF, spikes to an .npz file that the other commands read.

    \b
    Examples:
      jaxlif simulate --model hodgkin-huxley --out cell.npz
      jaxlif simulate --set tau_m=20 --set t_ref=2 --stimulus step:250:100:900 --duration 1000 --out step.npz
    """
    if out.suffix != ".npz":
        raise ValueError(f"out = {out}: recordings are written to an .npz file")
    if repeats < 1:
        raise ValueError(f"repeats = {repeats}: at least 1 repeat is needed")
    if model == "hodgkin-huxley":
        _refuse_options("of --model lif only", set=changes, fit=fit_file, stimulus=stimulus)
        recording = _simulated_cell(seed, repeats, duration, dt)
    else:
        recording = _simulated_lif(
            _parameters(fit_file, changes), stimulus or "noise:200:150:5", seed, repeats, duration, dt
        )
    arrays = {"current": recording.current, "voltage": recording.voltage, "dt": recording.dt}
    _write_npz(out, arrays if recording.spikes is None else arrays | {"spikes": recording.spikes})
    click.echo(f"{recording}: {out}")


@main.command()
@_recording
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for fit.json, report and figure.")
@click.option("--tau-m", type=float, help="Membrane time constant of a .csv of rates, ms; fitted where not given.")
@click.option("--r-m", type=float, show_default="0.1", help="Membrane resistance, GΩ, for a .csv of rates.")
@click.option("--v-rest", type=float, show_default="-70", help="Resting potential, mV, likewise.")
@_seed
@_current
@_sweeps
@_source
@_clear_errors
def fi(file, out, tau_m, r_m, v_rest, seed, current, sweeps, from_electrode) -> None:
    """Fit a neuron to firing rates.

    FILE is a .csv with the columns current_pA and rate_Hz, or a recording of current steps, whose membrane is then
    fitted to its subthreshold sweeps. Prints the f-I curve beside the fitted one.
    """
    _require_folder(out)
    rates = read_rates(file) if file.suffix.lower() == ".csv" else None
    if rates is not None:
        given = {"tau_m": tau_m, "r_m": r_m, "v_rest": v_rest}
        known = {"tau_m": 20.0, "r_m": 0.1, "v_rest": -70.0} | {n: x for n, x in given.items() if x is not None}
        membrane = LIFParams(**known, v_th=known["v_rest"] + 20.0, v_reset=known["v_rest"])
        membrane.check()
        free = tau_m is None
        result = fit_rates(
            rates.currents, rates.rates, membrane, free_tau_m=free, name=file.name, sha256=rates.sha256, seed=seed
        )
        recording = None
    else:
        _refuse_options(
            "for a .csv of rates only; a recording has its own membrane", tau_m=tau_m, r_m=r_m, v_rest=v_rest
        )
        with _noted_warnings() as notes:
            recording = _read(file, current, sweeps, from_electrode)
            result = fit_recording(recording, seed=seed, progress=sys.stderr.isatty())
        result = replace(result, warnings=tuple(notes) + result.warnings)
        if result.protocol != "steps":
            raise ValueError(f"{file}: its current is not a family of steps with an f-I curve; use jaxlif fit")
    columns = (result.curve[name] for name in ("current_pA", "rate_Hz", "fitted_rate_Hz"))
    rows = [tuple(f"{x:.4g}" for x in row) for row in zip(*columns, strict=True)]
    click.echo(text_table([("current (pA)", "rate (Hz)", "fitted (Hz)"), *rows]) + "\n")
    _finish(result, out, recording)


def _read(file: Path, current: str | None, sweeps: str | None, electrode: str | None) -> Recording:
    """Read a recording; its messages name the keywords of Python, which are these options here."""
    numbers = None if sweeps is None else sweep_numbers(sweeps)
    try:
        return read_recording(file, current=current, sweeps=numbers, electrode=electrode)
    except ValueError as error:
        text = str(error).replace("`sweeps`", "--sweeps").replace("`electrode`", "--from-electrode")
        raise ValueError(text) from error


@main.command()
@click.argument("fit_file", metavar="FIT", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "target",
    type=click.Choice(["nest", "brian2", "json"]),
    required=True,
    help="A Python script for NEST (iaf_psc_delta, iaf_psc_exp or gif_psc_exp) or Brian2, or the parameters as JSON.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file to write, .py or .json.")
@click.option("--drive", type=click.Path(path_type=Path), help="A recording whose first current the script injects.")
@click.option("--synapse", type=click.Choice(["delta", "exp"]), default="delta", show_default=True, help="For NEST.")
@_clear_errors
def export(fit_file, target, out, drive, synapse) -> None:
    """Write a fitted neuron for another program.

    FIT is a fit.json. The script holds the neuron's equations and values, runs it with the current of --drive (1 s of
    1.5 times the rheobase where none is given) and prints the spike times as JSON; it needs nothing of jaxlif.
    """
    suffix = ".json" if target == "json" else ".py"
    if out.suffix != suffix:
        raise ValueError(f"out = {out}: --to {target} writes a {suffix} file")
    result = load_fit(fit_file)
    text = exported(result, target, drive=read_recording(drive) if drive else None, synapse=synapse)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, text.encode())
    click.echo(f"{result.model} for {target}: {out}")


def _finish(result: RecordingFit, out: Path, recording: Recording | None) -> None:
    """Print a fit, and write its file, report and figures all at once."""
    from jaxlif.report import write_report  # it loads matplotlib, which no other command needs

    existing = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    with tempfile.TemporaryDirectory(dir=existing, prefix=".jaxlif-") as temporary:
        paths = [*write_report(result, Path(temporary), recording), result.save(temporary)]
        out.mkdir(parents=True, exist_ok=True)
        for path in paths:
            os.replace(path, out / path.name)
    columns = ("name", "value", "interval", "unit", "standard_name")
    rows = [tuple(row[c] for c in columns) for row in parameter_rows(result.params, result.intervals)]
    click.echo(text_table([("parameter", "value", "95 % interval", "unit", ""), *rows], right=(1,)) + "\n")
    _echo_scores(result.scores)
    for note in result.warnings:
        click.echo(f"note: {note}")
    click.echo(f"report and figures: {out / 'report.html'}, {out}{os.sep}*.png, *.svg\nfit: {out / 'fit.json'}")


def _require_folder(out: Path) -> None:
    """Refuse an output folder that is a file, before anything long begins."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"out = {out}: this is a file; name a folder")


def _refuse_options(why: str, **options: Any) -> None:
    """Refuse options that would be ignored."""
    for name, value in options.items():
        if value not in (None, ()):
            raise ValueError(f"--{name.replace('_', '-')} is {why}")


def _echo_scores(scores: Scores) -> None:
    parts, rows = score_rows(scores)
    click.echo(text_table([("score", *parts), *((label, *cells) for label, cells in rows)]) + "\n")


def _parameters(fit_file: Path | None, changes: tuple[str, ...]) -> LIFParams:
    """Return a fitted or the default neuron with "name=value" changes."""
    params = load_fit(fit_file).params if fit_file else LIFParams()
    for text in changes:
        name, _, value = text.partition("=")
        if name not in asdict(params):
            raise ValueError(f"set = {text!r}: {name!r} is no parameter; they are {', '.join(asdict(params))}")
        params = replace(params, **{name: number("set", text, value)})
    params.check()
    return params


def _simulated_cell(seed: int, repeats: int, duration: float, dt: float) -> Recording:
    with jax.enable_x64(True):
        return simulated_recording(jax.random.key(seed), repeats=repeats, duration=duration, dt=dt)


def _simulated_lif(params: LIFParams, stimulus: str, seed: int, repeats: int, duration: float, dt: float) -> Recording:
    with jax.enable_x64(True):
        current = stimulus_of(stimulus, seed, duration, dt)
        _, output = run(LIF(dt=dt), params, current)
        rows = [np.tile(np.asarray(x), (repeats, 1)) for x in (current, output.v, output.spikes > 0)]
    return Recording(current=rows[0], voltage=rows[1], spikes=rows[2], dt=dt, current_source="commanded", name="LIF")


def _compare(result: RecordingFit, recording: Recording, prediction: Prediction, *, forced: bool) -> Scores:
    """Score a prediction against the recording: its voltage where the spikes were forced, else its own spikes."""
    spikes = result.spike_rule.find(recording)
    if forced:
        before, after = (round(t / recording.dt) for t in result.spike_cut)
        voltage = prediction.voltage + prediction.electrode_drop
        return {"prediction": voltage_scores(recording, spikes, voltage, before=before, after=after)}
    steps = np.round(prediction.spike_time / recording.dt).astype(int) - 1
    model = np.zeros((int(prediction.spike_repeat.max(initial=0)) + 1, *recording.current.shape), bool)
    model[prediction.spike_repeat, prediction.spike_sweep, steps] = True
    return {"prediction": spike_scores(recording, spikes, model if result.model == "gif" else model[0])}


def _write_npz(path: Path, arrays: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


if __name__ == "__main__":
    main()
