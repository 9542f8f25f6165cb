"""The command line: the group of all commands, and those that make a fit: fit, ladder and fi."""

import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import jax
from click.exceptions import Exit

from jaxlif import options
from jaxlif.commands import advise, export, inspect, predict, simulate
from jaxlif.fitting.rates import fit_rates
from jaxlif.fitting.recordings import MODELS, check_options, fit_recording, model_ladder
from jaxlif.fitting.result import RecordingFit
from jaxlif.fitting.several import fit_each, named_files
from jaxlif.neurons.lif import LIFParams
from jaxlif.options import noted_warnings, taken_reading, taken_spikes, with_options
from jaxlif.recordings import SpikeRule, read_rates, read_recording
from jaxlif.recordings.spikes import spike_notes
from jaxlif.recordings.units import Corrections
from jaxlif.report import (
    REPORT_FILES,
    cell_rows,
    parameter_rows,
    score_table,
    sweep_line,
    text_table,
    write_report,
)
from jaxlif.writing import staged


class _Main(options.Commands):
    """The group of all commands."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command; one that was interrupted ends at once, since XLA's threads may still be at work."""
        alone = sys.stdout is sys.__stdout__  # and not within a test
        if alone:
            sys.unraisablehook = _not_lost
        try:
            return super().main(*args, **kwargs)
        except SystemExit as end:
            if alone and end.code == options.INTERRUPTED:
                sys.stdout.flush()
                os._exit(options.INTERRUPTED)  # an orderly end would take their memory away under them, and crash
            raise


def _not_lost(unraisable: Any) -> None:
    """Send an interrupt again that came where Python ignores exceptions, such as JAX's part of a garbage collection."""
    if unraisable.exc_type is KeyboardInterrupt:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(unraisable)


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
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


@main.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=options.file)
@click.option(
    "--model",
    type=click.Choice(MODELS),
    default="lif",
    show_default=True,
    help='The neuron to fit: "lif"; "gif", adaptive with escape noise; "adaptive", its deterministic twin; or'
    ' "passive", the membrane alone, from sweeps without a spike.',
)
@click.option(
    "--electrode",
    type=options.electrode,
    metavar="WHAT",
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
@click.option(
    "--rest",
    type=click.Choice(["auto", "fitted"]),
    default="auto",
    show_default=True,
    help="auto: v_rest of gif and adaptive is each sweep's voltage before the stimulus, where there is such time.",
)
@click.option(
    "--drift", is_flag=True, help="Give each sweep an offset of its rest and a gain of its current (gif and adaptive)."
)
@options.out_folder("Folder for fit.json, report and figures.")
@click.option(
    "--held-out",
    metavar="WHAT",
    help="Sweeps to judge by instead of time: stimulus:NAME, repeat:NUMBER or sweep:NUMBER, numbered from 0; several"
    " after commas. Everything else is fitted.",
)
@click.option(
    "--window",
    "--train",
    type=options.window,
    metavar="A:B",
    help="Window to fit, in seconds or with a unit: 0:10, 0:10s, 0:10000ms. The rest is predicted and scored. An end"
    " past the last second of the recording is read as ms, if the window then has 100 ms. Default: the first 70 %; all"
    " of a step protocol.",
)
@options.seed
@options.reading
@options.spikes
@click.option(
    "--bounds",
    type=options.interval,
    multiple=True,
    metavar="NAME=LOW:HIGH",
    help="Interval of a parameter in its unit, such as tau_m=5:40; may be given several times.",
)
def fit(files, out, window, bounds, **given) -> None:
    """Fit a neuron to a recording, or to each of several.

    Steps of current are fitted by their subthreshold sweeps and their f-I curve, any other current by the voltage with
    resets at the recorded spikes, and a threshold chosen in closed loop. Prints the parameters and the scores and
    writes OUT/fit.json, OUT/report.html and the figures.

    Of several files each has a folder in OUT, named as the file is without its suffix. Prints a table of them, and why
    a bad one could not be read or fitted: it does not stop the others. The exit status is 1 if none could be fitted.

    \b
    Examples:
      jaxlif fit cell.abf --out out/
      jaxlif fit noise.npz --window 0:10 --out out/
      jaxlif fit noise.npz --model gif --out out/
      jaxlif fit noise.npz --model gif --held-out stimulus:04 --out out/
      jaxlif fit a.npz b.nwb c.abf --out out/
    """
    reading, given = taken_reading(given), given | {"spike_rule": SpikeRule(**taken_spikes(given))}
    limits = dict(bounds) or None

    def _fit_one(file: Path, folder: Path, progress: bool) -> RecordingFit:
        with noted_warnings() as notes:
            recording = read_recording(file, **reading)
            chosen = window(recording) if window else None
            result = fit_recording(recording, train=chosen, bounds=limits, progress=progress, **given)
        result = replace(result, warnings=tuple(notes) + result.warnings)
        write_report(result, folder, recording)
        result.save(folder)
        return result

    if len(files) > 1:
        check_options(given["model"], bounds=limits, rest=given["rest"], drift=given["drift"])
        _fit_several(named_files(files), out, _fit_one)
        return
    with _results(out) as folder:
        result = _fit_one(files[0], folder, sys.stderr.isatty())
    _print(result, out)


def _fit_several(files: dict[str, Path], out: Path, fit_one: Callable[[Path, Path, bool], RecordingFit]) -> None:
    """Write the fits of several files, each into its folder, and print them as a table."""

    def _write_one(name: str, file: Path) -> RecordingFit:
        with _results(out / name) as folder:
            return fit_one(file, folder, False)

    for name in files:
        if (out / name).is_file():
            raise ValueError(f"out = {out / name}: this is a file, and would have to be a folder")
    with staged(out):  # which is tried before the first fit, and whose own file cannot be taken for a cell's fault
        found = fit_each(files, _write_one, progress=sys.stderr.isatty())
    if found.fits:
        click.echo(text_table(cell_rows(found)) + "\n")
    for name, result in found.fits.items():
        for note in result.warnings:
            click.echo(f"note: {name}: {note}")
    for name, reason in found.failed.items():
        click.echo(f"failed: {name}: {with_options(reason)}")
    if not found.fits:
        raise Exit(1)
    click.echo(f"{len(found.fits)} of {len(files)} fitted: {out}{os.sep}NAME{os.sep}fit.json, report.html and figures")


@contextmanager
def _results(out: Path) -> Iterator[Path]:
    """Stage the results of a fit, in the place of those of an earlier one."""
    for name in ("fit.json", "report.html"):
        if (out / name).is_dir():
            raise ValueError(f"out = {out / name}: this is a folder; name another")
    replaced = (out / "fit.json").exists()
    with staged(out) as folder:
        yield folder
        new = {path.name for path in folder.iterdir()}
    for name in REPORT_FILES - new if replaced else ():
        (out / name).unlink(missing_ok=True)


def _print(result: RecordingFit, out: Path) -> None:
    """Print a fit and where it lies."""
    columns = ("name", "value", "interval", "unit", "standard_name")
    parameters = parameter_rows(result.params, result.intervals, result.undetermined)
    rows = [
        ("parameter", "value", "95 % interval", "unit", ""),
        *(tuple(row[c] for c in columns) for row in parameters),
    ]
    click.echo(f"{text_table(rows, right=(1,))}\n\n{score_table(result.scores)}\n")
    for line in [line for line in [sweep_line(result)] if line] + [f"note: {note}" for note in result.warnings]:
        click.echo(line)
    click.echo(f"report and figures: {out / 'report.html'}, {out}{os.sep}*.png, *.svg\nfit: {out / 'fit.json'}")


@main.command()
@options.recording
@click.option("--window", "--train", type=options.window, metavar="A:B", help="As for fit. Default: the first 70 %.")
@options.reading
@options.spikes
def ladder(file, window, **given) -> None:
    """Say which mechanisms a cell needs.

    Fits a plain neuron with escape noise, then adds refractoriness, spike-triggered currents, a threshold that moves at
    spikes and one that follows the voltage, and prints what each is worth on held-out time, in bits per spike.
    """
    rule, recording = SpikeRule(**taken_spikes(given)), read_recording(file, **taken_reading(given))
    chosen = window(recording) if window else None
    found = model_ladder(recording, train=chosen, spike_rule=rule, progress=sys.stderr.isatty())
    rows = [("model, each with the ones above it", "held out (bits per spike)", "gain")]
    rows += [(r.name, f"{r.held_out:.3f}", "failed" if r.failed else f"{r.gain:+.3f}") for r in found.rungs]
    click.echo(f"{text_table(rows)}\n\n{found.sentence}")
    for note in spike_notes(recording, rule):
        click.echo(f"note: {note}")


@main.command()
@options.recording
@options.out_folder("Folder for fit.json, report and figure.")
@click.option("--tau-m", type=float, help="Membrane time constant, ms; fitted where not given.")
@click.option("--r-m", type=float, default=0.1, show_default=True, help="Membrane resistance, GΩ.")
@click.option("--v-rest", type=float, default=-70.0, show_default=True, help="Resting potential, mV.")
@options.seed
@options.current_corrections
def fi(file, out, tau_m, r_m, v_rest, seed, **corrected) -> None:
    """Fit a neuron to firing rates.

    FILE is a .csv with the columns current_pA and rate_Hz. Prints the f-I curve beside the fitted one. A recording of
    current steps has its membrane in it too: jaxlif fit.
    """
    if file.suffix.lower() != ".csv":
        raise ValueError(f"{file}: a .csv of rates is expected; a recording of current steps is for jaxlif fit")
    corrections = Corrections(**{name: value for name, value in corrected.items() if value is not None})
    membrane = LIFParams(
        tau_m=20.0 if tau_m is None else tau_m, r_m=r_m, v_rest=v_rest, v_th=v_rest + 20.0, v_reset=v_rest
    )
    membrane.check()
    with _results(out) as folder:
        rates = read_rates(file, corrections)
        origin = {"name": file.name, "sha256": rates.sha256}
        result = fit_rates(rates.currents, rates.rates, membrane, free_tau_m=tau_m is None, seed=seed, **origin)
        result = replace(result, data=dict(result.data) | {"corrections": corrections.given()})
        write_report(result, folder)
        result.save(folder)
    columns = (result.curve[name] for name in ("current_pA", "rate_Hz", "fitted_rate_Hz"))
    rows = [tuple(f"{x:.4g}" for x in row) for row in zip(*columns, strict=True)]
    click.echo(text_table([("current (pA)", "rate (Hz)", "fitted (Hz)"), *rows]) + "\n")
    _print(result, out)


for command in (advise, export, inspect, predict, simulate):
    main.add_command(command)

if __name__ == "__main__":
    main()
