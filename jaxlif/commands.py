"""The commands that make no fit: inspect and simulate, and those that start from one: predict, advise and export."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import jax
import numpy as np

from jaxlif import options
from jaxlif.files import staged
from jaxlif.fitting.advisor import advise_protocol
from jaxlif.fitting.fit_json import rows_of
from jaxlif.fitting.other_recording import prediction_notes, prediction_scores
from jaxlif.fitting.result import RecordingFit, load_fit
from jaxlif.inspection import inspect_recording
from jaxlif.interop import to_brian2, to_nest, to_script
from jaxlif.neurons.leaky import LeakyParams
from jaxlif.options import Given, noted_warnings, with_options
from jaxlif.recordings import Recording, SpikeRule, read_recording
from jaxlif.recordings.notes import held_current
from jaxlif.report import score_rows, text_table
from jaxlif.simulated import simulated_recording
from jaxlif.stages import stage, stages


@click.command()
@options.recording
@options.out_folder(help="Folder for figures, inspection.png and spikes.png.")
@options.reading
@options.spikes
def inspect(file: Path, out: Path | None, reading: Given, spikes: Given) -> None:
    """Say what is in a recording, before any fit, and what a fit would do with it.

    Prints clamp, channels and units, ranges, the rest and its drift, and for each sweep its current, where it rests and
    how often it fires. What cannot be fitted is inspected too, and says why.
    """
    with noted_warnings() as read:
        found = inspect_recording(file, spike_rule=SpikeRule(**spikes), **reading)
    width = max(map(len, (*found.facts, "a fit")))
    lines = [f"{label:{width}}  {text}" for label, text in found.facts.items()]
    lines += ["", text_table(list(found.sweeps)), ""] if found.sweeps else []
    lines += [f"note: {note}" for note in (*read, *found.notes)] + [f"{'a fit':{width}}  {found.verdict}"]
    click.echo(with_options("\n".join(lines)))
    if out and found.recording is not None:
        from jaxlif.pictures import all_sweeps, found_spikes  # they load matplotlib, which only figures need

        figures = {
            "inspection.png": all_sweeps(found, found.recording),
            "spikes.png": found_spikes(found, found.recording),
        }
        drawn = {name: figure for name, figure in figures.items() if figure is not None}
        with staged(out) as folder:
            for name, figure in drawn.items():
                figure.savefig(folder / name, dpi=150)
        click.echo(f"figures: {', '.join(str(out / name) for name in drawn)}")


@click.command()
@options.out_file(help="The .npz recording to write.")
@click.option("--model", type=click.Choice(["hodgkin-huxley"]), required=True, help="The cell.")
@click.option("--duration", default=6000.0, help="Of a sweep, ms.")
@click.option("--dt", default=0.1, help="Sampling interval, ms.")
@click.option("--repeats", type=click.IntRange(1), default=5, help="Sweeps of the same current.")
@options.seed
def simulate(out: Path, model: str, duration: float, dt: float, repeats: int, seed: int) -> None:
    """Simulate a recording, to try the other commands on.

    A neuron that makes its own spikes receives frozen noise and has noise of its own. Writes current, voltage and dt.

    \b
    Example:
      jaxlif simulate --model hodgkin-huxley --out cell.npz
    """
    with _one_file(out, ".npz") as path:
        with jax.enable_x64(True):
            recording = simulated_recording(jax.random.key(seed), repeats=repeats, duration=duration, dt=dt)
        arrays: dict[str, Any] = {"current": recording.current, "voltage": recording.voltage, "dt": recording.dt}
        np.savez_compressed(path, **arrays)
    click.echo(f"{recording}: {out}")


@click.command()
@options.fit_file
@options.recording
@options.out_file(help="The .npz file to write.")
@click.option("--repeats", type=click.IntRange(1), default=1, help="Presentations of each sweep.")
@options.seed
@options.reading
@options.spikes
@click.option("--force-spikes", is_flag=True, help="Reset at the recorded spikes instead of the model's own.")
def predict(
    fit_file: Path, file: Path, out: Path, repeats: int, seed: int, force_spikes: bool, reading: Given, spikes: Given
) -> None:
    """Predict the response to the current of a recording.

    FIT is a fit.json. Writes spike_time (ms), spike_repeat, spike_sweep and voltage [sweeps, T] (mV) to an .npz file,
    and prints scores where FILE has a voltage to compare with. What the fit warns of is repeated.
    """
    with _one_file(out, ".npz", fit_file, file) as path, stages(sys.stderr.isatty()):
        stage("reading")
        result, recording = load_fit(fit_file), read_recording(file, **reading)
        stage("prediction")
        result = replace(result, spike_rule=replace(result.spike_rule, **spikes))
        prediction = result.predict(recording, repeats=repeats, seed=seed, force_spikes=force_spikes)
        np.savez_compressed(path, **{n: array for n, array in prediction._asdict().items() if n != "notes"})
    click.echo(f"{len(prediction.spike_time)} spikes in {recording.num_sweeps * repeats} responses: {out}")
    notes = prediction.notes
    if recording.voltage is not None:
        scores = prediction_scores(result, recording, prediction, repeats=repeats, forced=force_spikes)
        click.echo(text_table(score_rows({"prediction": scores})) + "\n")
        notes += prediction_notes(result, recording)
    known = [f"of the fit: {n}" for n in result.warnings if n not in prediction.notes]
    for note in known + [n for n in notes if n in prediction.notes or n not in result.warnings]:
        click.echo(f"note: {note}")


@click.command()
@options.fit_file
@options.seed
def advise(fit_file: Path, seed: int) -> None:
    """Say which recording to make next.

    FIT is a fit.json of --model gif. Prints what further recordings would leave of the 95 % intervals: 0.5 is half as
    wide, * marks the best for a parameter. The recordings are listed below, the most helpful first, each with what it
    leaves on the geometric mean.
    """
    advice = advise_protocol(load_fit(fit_file), seed=seed)
    click.echo("\n".join((text_table(advice.rows()), "", *advice.legend())))


@click.command()
@options.fit_file
@click.option("--to", "target", type=click.Choice(["nest", "brian2", "json"]), required=True, help="What to write.")
@options.out_file(help="The file to write, .py or .json.")
@click.option("--drive", type=options.file, help="A recording whose current the script injects.")
@options.reading
def export(fit_file: Path, target: str, out: Path, drive: Path | None, reading: Given) -> None:
    """Write a fitted neuron for another program.

    FIT is a fit.json. Writes a Python script for NEST (iaf_psc_delta or gif_psc_exp) or Brian2, or the
    parameters as JSON. The script holds the neuron's equations and values, runs it with the current of --drive (1 s of
    1.5 times the rheobase where none is given) and prints the spike times as JSON; it needs nothing of jaxlif. What the
    fit warns of is repeated in what is written.
    """
    suffix = ".json" if target == "json" else ".py"
    if suffix == ".py" and out.stem in (*sys.stdlib_module_names, "numpy", "nest", "brian2"):
        raise ValueError(f"out = {out.name}: the script imports a module {out.stem}, and would find itself; rename it")
    if drive is None and reading:
        raise ValueError(f"`{next(iter(reading))}` is for the recording of --drive only")
    with _one_file(out, suffix, fit_file, drive) as path:
        result = load_fit(fit_file)
        recording = read_recording(drive, **reading) if drive else None
        text = neuron_json(result) if target == "json" else script_of(result, target, recording)
        path.write_text(text, encoding="utf-8")
    click.echo(f"{result.model} for {target}: {out}")
    for note in result.warnings:
        click.echo(f"note: {' '.join(note.split())}", err=True)


def neuron_json(fit: RecordingFit) -> str:
    """Return the neuron of a fit as plain JSON: model, warnings and, by name, value, unit and its name in words."""
    names = ("value", "unit", "standard_name")
    rows = {name: {n: getattr(row, n) for n in names} for name, row in rows_of(fit).items()}
    neuron = {"model": fit.model, "parameters": rows, "warnings": list(fit.warnings)}
    return json.dumps(neuron, indent=2, ensure_ascii=False, allow_nan=False)


def script_of(fit: RecordingFit, target: str, drive: Recording | None) -> str:
    """Return a script that runs a fitted neuron, 1 s under 1.5 times its rheobase without a drive, and its warnings."""
    if isinstance(fit.params, LeakyParams):
        raise ValueError(f'model = "passive": a membrane without spikes is no neuron of {target}; export it to json')
    if target == "nest" and fit.model == "deterministic-gif":
        raise ValueError("model = deterministic-gif: NEST has it with escape noise only; export a gif, or to brian2")
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
    model = to_nest(fit.params, dt=dt) if nest else to_brian2(fit.params, dt=dt, escape_noise=noisy)
    notes = [f"# note: {' '.join(note.split())}\n" for note in fit.warnings]
    return "".join(notes) + to_script(model, current, dt=dt)


@contextmanager
def _one_file(out: Path, suffix: str, *inputs: Path | None) -> Iterator[Path]:
    """Yield a path from which a file comes to be ``out`` in the end; refuse another kind, and what is read, at once."""
    if out.suffix != suffix:
        raise ValueError(f"out = {out}: a {suffix} file is written")
    if any(path is not None and path.exists() and out.exists() and path.samefile(out) for path in inputs):
        raise ValueError(f"out = {out}: this file is read, and would be lost; name another")
    with staged(out.parent) as folder:
        yield folder / out.name
