"""The commands that start from a fit: predict, advise and export."""

import sys
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from jaxlif.commands import options
from jaxlif.commands.errors import clear_errors, refuse_options
from jaxlif.commands.files import read
from jaxlif.fitting.advisor import advise_protocol
from jaxlif.fitting.result import Prediction, RecordingFit, load_fit, neuron_json
from jaxlif.fitting.scores import spike_scores, unreliable_notes, voltage_scores
from jaxlif.interop import to_brian2, to_nest, to_script
from jaxlif.neurons.readout import LeakyParams
from jaxlif.recordings import Recording
from jaxlif.recordings.sampling import held_current
from jaxlif.recordings.spikes import spike_notes
from jaxlif.tables import Scores, score_table, text_table
from jaxlif.writing import staged_file


@click.command()
@options.fit_file
@options.recording
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The .npz file to write.")
@click.option("--repeats", type=int, default=1, show_default=True, help="Presentations of each sweep.")
@options.seed
@options.reading
@options.spikes
@click.option("--force-spikes", is_flag=True, help="Reset at the recorded spikes instead of the model's own.")
@clear_errors
def predict(fit_file, file, out, repeats, seed, reading, spike_rule, force_spikes) -> None:
    """Predict the response to the current of a recording.

    FIT is a fit.json. Writes spike_time (ms), spike_repeat, spike_sweep and voltage [sweeps, T] (mV) to an .npz file,
    and prints scores where FILE has a voltage to compare with. What the fit warns of is repeated.
    """
    if out.suffix != ".npz":
        raise ValueError(f"out = {out}: predictions are written to an .npz file")
    with staged_file(out, fit_file, file) as path:
        result, recording = load_fit(fit_file), read(file, reading)
        result = replace(result, spike_rule=replace(result.spike_rule, **spike_rule))
        prediction = result.predict(recording, repeats=repeats, seed=seed, force_spikes=force_spikes)
        np.savez_compressed(path, **{n: array for n, array in prediction._asdict().items() if n != "notes"})
    click.echo(f"{len(prediction.spike_time)} spikes in {recording.num_sweeps * repeats} responses: {out}")
    if recording.voltage is not None:
        click.echo(score_table(_compare(result, recording, prediction, forced=force_spikes)) + "\n")
        likelihood = result.likelihood_note(recording)
        missed = spike_notes(recording, result.spike_rule)
        unreliable = unreliable_notes(recording, result.spike_rule.find(recording))
        prediction = prediction._replace(notes=prediction.notes + likelihood + unreliable + missed)
    for note in [f"of the fit: {n}" for n in result.warnings if n not in prediction.notes] + [*prediction.notes]:
        click.echo(f"note: {note}")


def _compare(result: RecordingFit, recording: Recording, prediction: Prediction, *, forced: bool) -> Scores:
    """Score a prediction against the recording: its voltage where the spikes were forced, else its own spikes."""
    spikes = result.spike_rule.find(recording)
    if forced or result.model == "passive":
        before, after = (round(t / recording.dt) for t in result.spike_cut)
        voltage = prediction.voltage + prediction.electrode_drop
        return {"prediction": voltage_scores(recording, spikes, voltage, before=before, after=after)}
    steps = np.round(prediction.spike_time / recording.dt).astype(int) - 1
    model = np.zeros((int(prediction.spike_repeat.max(initial=0)) + 1, *recording.current.shape), bool)
    model[prediction.spike_repeat, prediction.spike_sweep, steps] = True
    return {"prediction": spike_scores(recording, spikes, model if result.model == "gif" else model[0])}


@click.command()
@options.fit_file
@click.option(
    "--for", "names", multiple=True, metavar="NAME", help="Rank by this parameter; may be given several times."
)
@click.option("--duration", type=float, help="Of the further recording, s. Default: as long as the fitted one.")
@options.seed
@clear_errors
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


@click.command()
@options.fit_file
@click.option(
    "--to",
    "target",
    type=click.Choice(["nest", "brian2", "json"]),
    required=True,
    help="A Python script for NEST (iaf_psc_delta, iaf_psc_exp or gif_psc_exp) or Brian2, or the parameters as JSON.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file to write, .py or .json.")
@click.option("--drive", type=click.Path(path_type=Path), help="A recording whose current the script injects.")
@click.option("--synapse", type=click.Choice(["delta", "exp"]), default="delta", show_default=True, help="For NEST.")
@options.reading
@clear_errors
def export(fit_file, target, out, drive, synapse, reading) -> None:
    """Write a fitted neuron for another program.

    FIT is a fit.json. The script holds the neuron's equations and values, runs it with the current of --drive (1 s of
    1.5 times the rheobase where none is given) and prints the spike times as JSON; it needs nothing of jaxlif. What the
    fit warns of is repeated in what is written.
    """
    suffix = ".json" if target == "json" else ".py"
    if out.suffix != suffix:
        raise ValueError(f"out = {out}: --to {target} writes a {suffix} file")
    if suffix == ".py" and (out.stem in sys.stdlib_module_names or out.stem in _IMPORTED):
        raise ValueError(f"out = {out.name}: the script imports a module {out.stem}, and would find itself; rename it")
    if drive is None:
        refuse_options("for the recording of --drive only", **reading)
    with staged_file(out, fit_file, drive) as path:
        result = load_fit(fit_file)
        if target == "json":
            text = neuron_json(result)
        else:
            text = script_of(result, target, read(drive, reading) if drive else None, synapse)
        path.write_text(text, encoding="utf-8")
    click.echo(f"{result.model} for {target}: {out}")
    for note in result.warnings:
        click.echo(f"note: {' '.join(note.split())}", err=True)


# What the scripts of NEST and Brian2 import, beside Python's own.
_IMPORTED = {"nest", "pynestkernel", "brian2", "numpy", "scipy", "sympy", "mpmath", "matplotlib", "pandas", "jinja2"}
_IMPORTED |= {"markupsafe", "Cython", "cython", "pyparsing", "packaging", "setuptools", "cpuinfo", "ipywidgets", "PIL"}


def script_of(fit: RecordingFit, target: str, drive: Recording | None, synapse: str) -> str:
    """Return a script that runs a fitted neuron, 1 s under 1.5 times its rheobase without a drive, and its warnings."""
    if isinstance(fit.params, LeakyParams):
        raise ValueError(f'model = "passive": a membrane without spikes is no neuron of {target}; export it to json')
    if target == "nest" and fit.model == "adaptive":
        raise ValueError("model = adaptive: NEST has this neuron with escape noise only; export a gif, or to brian2")
    if drive is None:
        dt = float(fit.data.get("dt_ms", 0.1))
        current = np.full(round(1000.0 / dt), 1.5 * (fit.params.v_th - fit.params.v_rest) / fit.params.r_m)
    else:
        drive, dt = held_current(drive, bool(fit.data.get("current_sampled", False))), float(drive.dt)
        current = drive.current[0]
        if (drive.current != current).any():
            rule = "choose one with `sweeps`, as [0]"
            raise ValueError(f"drive has {drive.num_sweeps} sweeps of different currents: {rule}")
    nest = target == "nest"
    noisy = fit.model == "gif"
    model = to_nest(fit.params, dt=dt, synapse=synapse) if nest else to_brian2(fit.params, dt=dt, escape_noise=noisy)
    notes = [f"# note: {' '.join(note.split())}\n" for note in fit.warnings]
    return "".join(notes) + to_script(model, current, dt=dt)
