"""The commands that start from a fit: predict, advise and export."""

from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from jaxlif.commands import options
from jaxlif.commands.errors import clear_errors, refuse_options
from jaxlif.commands.files import read
from jaxlif.exporting import exported, require_own_name
from jaxlif.fitting.advisor import advise_protocol
from jaxlif.fitting.result import Prediction, RecordingFit, load_fit
from jaxlif.fitting.scores import spike_scores, unreliable_notes, voltage_scores
from jaxlif.recordings import Recording, spike_notes
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
    if suffix == ".py":
        require_own_name(out.stem)
    if drive is None:
        refuse_options("for the recording of --drive only", **reading)
    with staged_file(out, fit_file, drive) as path:
        result = load_fit(fit_file)
        text = exported(result, target, drive=read(drive, reading) if drive else None, synapse=synapse)
        path.write_text(text, encoding="utf-8")
    click.echo(f"{result.model} for {target}: {out}")
    for note in result.warnings:
        click.echo(f"note: {' '.join(note.split())}", err=True)
