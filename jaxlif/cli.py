"""The command line: the group of all commands, and those that make a fit: fit, ladder and fi."""

import os
import platform
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import jax
from click.exceptions import Exit

from jaxlif.arguments import bounds_of, electrode_of, window_of
from jaxlif.commands import options
from jaxlif.commands.errors import INTERRUPTED, clear_errors, noted_warnings, refuse_options, with_options
from jaxlif.commands.files import read
from jaxlif.commands.fitted import advise, export, predict
from jaxlif.commands.inspected import inspect
from jaxlif.commands.simulated import simulate
from jaxlif.fitting.rates import fit_rates
from jaxlif.fitting.recordings import check_options, fit_recording, model_ladder
from jaxlif.fitting.result import RecordingFit
from jaxlif.fitting.several import fit_each, named_files
from jaxlif.neurons.lif import LIFParams
from jaxlif.recordings import Recording, SpikeRule, read_rates
from jaxlif.recordings.notes import hum_notes
from jaxlif.recordings.spikes import spike_notes
from jaxlif.recordings.units import Corrections
from jaxlif.tables import cell_rows, parameter_rows, score_table, sweep_line, text_table
from jaxlif.writing import require_folder, staged


class _Commands(click.Group):
    """The group of all commands."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command; one that was interrupted ends at once, since XLA's threads may still be at work."""
        alone = sys.stdout is sys.__stdout__  # and not within a test
        if alone:
            sys.unraisablehook = _not_lost
        try:
            return super().main(*args, **kwargs)
        except SystemExit as end:
            if alone and end.code == INTERRUPTED:
                sys.stdout.flush()
                os._exit(INTERRUPTED)  # an orderly end would take their memory away under them, and crash
            raise


def _not_lost(unraisable: Any) -> None:
    """Send an interrupt again that came where Python ignores exceptions, such as JAX's part of a garbage collection."""
    if unraisable.exc_type is KeyboardInterrupt:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(unraisable)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
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
@options.recordings
@click.option(
    "--model",
    default="lif",
    show_default=True,
    help='The neuron to fit: "lif"; "gif", adaptive with escape noise; "adaptive", its deterministic twin; or'
    ' "passive", the membrane alone, from sweeps without a spike.',
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
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for fit.json, report and figures.")
@click.option(
    "--held-out",
    metavar="WHAT",
    help="Sweeps to judge by instead of time: stimulus:NAME, repeat:NUMBER or sweep:NUMBER, numbered from 0; several"
    " after commas. Everything else is fitted.",
)
@click.option(
    "--train",
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
    multiple=True,
    metavar="NAME=LOW:HIGH",
    help="Interval of a parameter in its unit, such as tau_m=5:40; may be given several times.",
)
@clear_errors
def fit(
    files,
    model,
    electrode,
    coupling,
    rest,
    drift,
    out,
    held_out,
    train,
    seed,
    reading,
    bounds,
    spike_rule,
) -> None:
    """Fit a neuron to a recording, or to each of several.

    Steps of current are fitted by their subthreshold sweeps and their f-I curve, any other current by the voltage with
    resets at the recorded spikes, and a threshold chosen in closed loop. Prints the parameters and the scores and
    writes OUT/fit.json, OUT/report.html and the figures.

    Of several files each has a folder in OUT, named as the file is without its suffix. Prints a table of them, and why
    a bad one could not be read or fitted: it does not stop the others. The exit status is 1 if none could be fitted.

    \b
    Examples:
      jaxlif fit cell.abf --out out/
      jaxlif fit noise.npz --train 0:10 --out out/
      jaxlif fit noise.npz --model gif --out out/
      jaxlif fit noise.npz --model gif --held-out stimulus:04 --out out/
      jaxlif fit a.npz b.nwb c.abf --out out/
    """
    given: dict[str, Any] = {
        "model": model,
        "electrode": electrode_of(electrode),
        "coupling": coupling,
        "rest": rest,
        "drift": drift,
        "held_out": held_out,
        "bounds": bounds_of(bounds) or None,
        "spike_rule": SpikeRule(**spike_rule),
        "seed": seed,
    }

    def _fit_one(file: Path, progress: bool) -> tuple[RecordingFit, Recording]:
        with noted_warnings() as notes:
            recording = read(file, reading)
            window = window_of(train, recording) if train else None
            result = fit_recording(recording, train=window, progress=progress, **given)
        return replace(result, warnings=tuple(notes) + result.warnings), recording

    if len(files) > 1:
        check_options(model, bounds=given["bounds"], rest=rest, drift=drift)
        _fit_several(named_files(files), out, _fit_one)
        return
    with _results(out) as folder:
        result, recording = _fit_one(files[0], sys.stderr.isatty())
        _write_all(result, folder, recording)
    _print(result, out)


def _fit_several(
    files: dict[str, Path], out: Path, fit_one: Callable[[Path, bool], tuple[RecordingFit, Recording]]
) -> None:
    """Write the fits of several files, each into its folder, and print them as a table."""
    for folder in (out, *(out / name for name in files)):
        require_folder(folder)

    def _write_one(name: str, file: Path) -> RecordingFit:
        with _results(out / name) as folder:
            result, recording = fit_one(file, False)
            _write_all(result, folder, recording)
        return result

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


@main.command()
@options.recording
@click.option("--train", metavar="A:B", help="Window to use, as for fit. Default: the first 70 %.")
@options.reading
@options.spikes
@clear_errors
def ladder(file, train, reading, spike_rule) -> None:
    """Say which mechanisms a cell needs.

    Fits a plain neuron with escape noise, then adds refractoriness, spike-triggered currents, a threshold that moves at
    spikes and one that follows the voltage, and prints what each is worth on held-out time, in bits per spike.
    """
    rule, recording = SpikeRule(**spike_rule), read(file, reading)
    window = window_of(train, recording) if train else None
    found = model_ladder(recording, train=window, spike_rule=rule, progress=sys.stderr.isatty())
    rows = [
        (rung.name, f"{rung.held_out:.3f}", "failed" if rung.failed else f"{rung.gain:+.3f}") for rung in found.rungs
    ]
    click.echo(text_table([("model, each with the ones above it", "held out (bits per spike)", "gain"), *rows]) + "\n")
    click.echo(found.sentence)
    for note in spike_notes(recording, rule):
        click.echo(f"note: {note}")


@main.command()
@options.recording
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for fit.json, report and figure.")
@click.option("--tau-m", type=float, help="Membrane time constant of a .csv of rates, ms; fitted where not given.")
@click.option("--r-m", type=float, show_default="0.1", help="Membrane resistance, GΩ, for a .csv of rates.")
@click.option("--v-rest", type=float, show_default="-70", help="Resting potential, mV, likewise.")
@options.seed
@options.reading
@options.spikes
@clear_errors
def fi(file, out, tau_m, r_m, v_rest, seed, reading, spike_rule) -> None:
    """Fit a neuron to firing rates.

    FILE is a .csv with the columns current_pA and rate_Hz, or a recording of current steps, whose membrane is then
    fitted to its subthreshold sweeps. Prints the f-I curve beside the fitted one.
    """
    with _results(out) as folder:
        result, recording = _fit_f_i(file, {"tau_m": tau_m, "r_m": r_m, "v_rest": v_rest}, seed, reading, spike_rule)
        _write_all(result, folder, recording)
    columns = (result.curve[name] for name in ("current_pA", "rate_Hz", "fitted_rate_Hz"))
    rows = [tuple(f"{x:.4g}" for x in row) for row in zip(*columns, strict=True)]
    click.echo(text_table([("current (pA)", "rate (Hz)", "fitted (Hz)"), *rows]) + "\n")
    _print(result, out)


def _fit_f_i(
    file: Path, membrane: dict[str, float | None], seed: int, reading: dict[str, Any], spike_rule: dict[str, Any]
) -> tuple[RecordingFit, Recording | None]:
    """Fit a .csv of rates with a membrane, or a recording, which is returned too."""
    if file.suffix.lower() == ".csv":
        corrections = {name: reading.pop(name) for name in list(reading) if name.startswith("current_")}
        refuse_options("for a recording only: a .csv of rates has none of that", **reading)
        if spike_rule:
            raise ValueError(f"{file}: a .csv of rates has no voltage to find spikes in; leave out the spike options")
        return _fit_rates_file(file, Corrections(**corrections), membrane, seed), None
    refuse_options("for a .csv of rates only; a recording has its own membrane", **membrane)
    with noted_warnings() as notes:
        recording = read(file, reading)
        rule, progress = SpikeRule(**spike_rule), sys.stderr.isatty()
        result = fit_recording(recording, spike_rule=rule, seed=seed, progress=progress)
    if result.protocol != "steps":
        why = "; ".join(("its current is not a family of steps with an f-I curve", *hum_notes(recording)))
        raise ValueError(f"{file}: {why}; use jaxlif fit")
    return replace(result, warnings=tuple(notes) + result.warnings), recording


def _fit_rates_file(file: Path, corrections: Corrections, given: dict[str, float | None], seed: int) -> RecordingFit:
    """Fit a .csv of rates, with the membrane that was given and the usual one where it was not."""
    rates = read_rates(file, corrections)
    known = {"tau_m": 20.0, "r_m": 0.1, "v_rest": -70.0} | {n: x for n, x in given.items() if x is not None}
    membrane = LIFParams(**known, v_th=known["v_rest"] + 20.0, v_reset=known["v_rest"])
    membrane.check()
    free, origin = given["tau_m"] is None, {"name": file.name, "sha256": rates.sha256}
    result = fit_rates(rates.currents, rates.rates, membrane, free_tau_m=free, seed=seed, **origin)
    return replace(result, data=dict(result.data) | {"corrections": corrections.given()})


def _results(out: Path) -> AbstractContextManager[Path]:
    """Stage the results of a fit, in the place of those of an earlier one."""

    def _earlier() -> list[str]:
        from jaxlif.report import report_files  # it loads matplotlib, which no other command needs

        return report_files() if (out / "fit.json").exists() else []

    require_folder(out, ["fit.json", "report.html"])
    return staged(out, _earlier)


def _write_all(result: RecordingFit, folder: Path, recording: Recording | None) -> None:
    """Write the file, the report and the figures of a fit."""
    from jaxlif.report import write_report

    write_report(result, folder, recording)
    result.save(folder)


def _print(result: RecordingFit, out: Path) -> None:
    """Print a fit and where it lies."""
    columns = ("name", "value", "interval", "unit", "standard_name")
    rows = [
        tuple(row[c] for c in columns) for row in parameter_rows(result.params, result.intervals, result.undetermined)
    ]
    click.echo(text_table([("parameter", "value", "95 % interval", "unit", ""), *rows], right=(1,)) + "\n")
    click.echo(score_table(result.scores) + "\n")
    if differ := sweep_line(result):
        click.echo(differ)
    for note in result.warnings:
        click.echo(f"note: {note}")
    click.echo(f"report and figures: {out / 'report.html'}, {out}{os.sep}*.png, *.svg\nfit: {out / 'fit.json'}")


for _other in (advise, export, inspect, predict, simulate):
    main.add_command(_other)

if __name__ == "__main__":
    main()
