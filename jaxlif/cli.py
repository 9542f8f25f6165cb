"""The command line: the group of all commands, and those that make a fit: fit, ladder and fi."""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import click
import jax
from click.exceptions import Exit

from jaxlif import options, report
from jaxlif.commands import advise, export, inspect, predict, simulate
from jaxlif.files import staged
from jaxlif.fitting.fit_recording import ALIASES, AUTO, MODELS, check_options, fit_recording
from jaxlif.fitting.ladder import model_ladder
from jaxlif.fitting.rates import fit_rates
from jaxlif.fitting.result import RecordingFit
from jaxlif.fitting.several import RecordingFits, fit_each, named_files
from jaxlif.neurons.lif import LIFParams
from jaxlif.options import Given, noted_warnings, with_options
from jaxlif.recordings import Recording, SpikeRule, read_recording
from jaxlif.recordings.spikes import spike_notes
from jaxlif.recordings.text import read_rates
from jaxlif.recordings.units import Corrections
from jaxlif.stages import stage, stages

_HELP = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110}


@click.group(cls=options.Commands, context_settings=_HELP)
@click.version_option(package_name="jaxlif")
def main() -> None:
    """Leaky integrate-and-fire neurons, fitted to recordings.

    Recordings are .npz (arrays current in pA, voltage in mV, dt in ms), .csv (a header that names units, such as
    time_ms,current_pA,voltage_mV), .abf, .nwb or .ibw files. Everything is in ms, mV, pA, GΩ, pF and nS; rates in Hz.

    Compiled code is kept for the next run in JAX_COMPILATION_CACHE_DIR, or else in the folder jaxlif of
    $XDG_CACHE_HOME or ~/.cache, which may be deleted.
    """
    config: Any = jax.config  # JAX 0.10 gives it its options only as it runs
    if config.jax_compilation_cache_dir is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        # By machine, since it is made for its processor.
        config.update("jax_compilation_cache_dir", str(cache / "jaxlif" / f"compiled-{platform.node()}"))
    least = min(0.05, config.jax_persistent_cache_min_compile_time_secs)  # s; what compiles faster is not kept
    config.update("jax_persistent_cache_min_compile_time_secs", least)


@main.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=options.file)
@click.option("--model", type=click.Choice((AUTO, *MODELS, *ALIASES)), default=AUTO, help="The neuron to fit.")
@click.option(
    "--electrode", type=options.electrode, metavar="WHAT", default="auto", help="What is taken off the voltage."
)
@click.option("--test", type=options.file, metavar="FILE", help="Another recording, to predict and to judge by.")
@click.option("--one-cell", is_flag=True, help="FILEs are sweeps of one cell.")
@click.option("--coupling/--no-coupling", default=None, help="Whether the threshold follows the voltage.")
@click.option("--rest", type=click.Choice(["auto", "fitted"]), default="auto", help="Where v_rest comes from.")
@click.option("--drift", is_flag=True, help="Give each sweep an offset of its rest and a gain of its current.")
@options.out_folder(required=True, help="Folder for fit.json, report and figures.")
@click.option("--held-out", metavar="WHAT", help="Sweeps to judge by instead of time.")
@options.window(help="What is fitted; the rest is scored.")
@click.option(
    "--bounds", type=options.interval, multiple=True, metavar="NAME=LOW:HIGH", help="Interval, as tau_m=5:40."
)
@click.option("--jobs", type=click.IntRange(1), help="Files fitted at a time. Default: one on each core.")
@options.seed
@options.reading
@options.spikes
def fit(
    files: tuple[Path, ...],
    out: Path,
    window: tuple[float, float] | None,
    electrode: Path | float | str | None,
    test: Path | None,
    one_cell: bool,
    jobs: int | None,
    bounds: tuple[tuple[str, Any], ...],
    reading: Given,
    spikes: Given,
    **given: Any,
) -> None:
    """Fit a neuron to a recording, or to each of several.

    Prints the parameters and the scores and writes OUT/fit.json, OUT/report.html and the figures.

    The neuron is "auto", the better of the next two on what neither saw; "lif"; "gif", adaptive with escape noise;
    "deterministic-gif" (or "adaptive"), the same without noise; or "passive", the membrane alone. For adaptive ones
    unseen data decide on the coupling; --rest auto is each sweep's voltage before the stimulus.

    --electrode is "auto" (estimated for adaptive neurons), "none", a series resistance in GΩ, or a file of the same
    electrode, such as of subthreshold noise; what it adds is taken off FILE and --test.

    --window is in seconds or has a unit: 0:10, 0:10s, 0:10000ms. Default: the first 70 %; all of a step protocol.
    --held-out is stimulus:NAME, repeat:NUMBER or sweep:NUMBER, numbered from 0, several after commas; everything else
    is fitted. --bounds are in the parameter's unit, such as mV, and may be given several times.

    A folder, or files with --one-cell, are the sweeps of one cell: sampled alike, of one length and holding current.

    Of several files each has a folder of its name in OUT, and OUT/cells.csv and cells.png show the parameters of all.
    They are fitted side by side. A bad one does not stop the others; the exit status is 1 if none could be fitted.

    \b
    Examples:
      jaxlif fit cell.abf --out out/
      jaxlif fit noise.npz --window 0:10 --out out/
      jaxlif fit noise.npz --model gif --out out/
      jaxlif fit noise.npz --model gif --held-out stimulus:04 --out out/
      jaxlif fit training.abf --model gif --electrode aec.abf --test test.abf --out out/
      jaxlif fit a.npz b.nwb c.abf --out out/
      jaxlif fit sweep_1.ibw sweep_2.ibw --one-cell --out out/
    """
    if len(dict(bounds)) < len(bounds):
        raise ValueError("bounds: a parameter is named twice")
    given |= {"spike_rule": SpikeRule(**spikes), "bounds": dict(bounds) or None}

    job = _Job(window, electrode, test, reading, given)
    if len(files) == 1 or one_cell:
        _print(job.fit(list(files) if one_cell else files[0], out, progress=sys.stderr.isatty()), out)
        return
    for name, path in {"electrode": electrode, "test": test}.items():
        if isinstance(path, Path):
            raise ValueError(f"{name} = {path}: it belongs to one cell, and there are {len(files)} files")
    check_options(**{name: given[name] for name in ("model", "bounds", "rest", "drift")})
    named = named_files(files)
    with staged(out) as folder:  # tried before the first fit: its own fault cannot be taken for a cell's
        found = fit_each(named, partial(_fit_into, out, job), jobs=jobs, progress=sys.stderr.isatty())
        report.write_cells(found, folder)
    _print_several(found, out)


def _fit_into(out: Path, job: "_Job", name: str, file: Path) -> RecordingFit:
    return job.fit(file, out / name)


class _Job(NamedTuple):
    """What was asked of a fit, as it can be sent to another process."""

    window: tuple[float, float] | None
    electrode: Path | float | str | None
    test: Path | None
    reading: Given
    given: Given

    def fit(self, file: Path | list[Path], out: Path, *, progress: bool = False) -> RecordingFit:
        """Fit a file, and write the fit and its report into a folder."""
        with _results(out) as folder, stages(progress):
            with noted_warnings() as notes:
                stage("reading")
                recording = read_recording(file, **self.reading)
                beside = {"electrode": self.electrode, "test": self.test}
                others: Given = {n: self._beside(x) if isinstance(x, Path) else x for n, x in beside.items()}
                result = fit_recording(recording, window=self.window, progress=progress, **others, **self.given)
            result = replace(result, warnings=tuple(notes) + result.warnings)
            stage("report")
            report.write_report(result, folder, recording)
            result.save(folder)
        return result

    def _beside(self, path: Path) -> Recording:
        """Read a recording that belongs to another one as that is read, but all of its sweeps."""
        return read_recording(path, **{name: value for name, value in self.reading.items() if name != "sweeps"})


def _print_several(found: RecordingFits, out: Path) -> None:
    """Print the fits of several files as a table, and why others have none."""
    if found.fits:
        click.echo(report.text_table(report.cell_rows(found)) + "\n")
    for name, result in found.fits.items():
        for line in (f"{name}: {result.verdict.sentence}", *(f"note: {name}: {note}" for note in result.notes)):
            click.echo(line)
    for name, reason in found.failed.items():
        click.echo(f"failed: {name}: {with_options(reason)}")
    if not found.fits:
        raise Exit(1)
    count = f"{len(found.fits)} of {len(found.fits) + len(found.failed)}"
    click.echo(f"{count} fitted: {out / 'NAME' / 'fit.json'}, report.html and figures; {out / 'cells.csv'} and .png")


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
    for name in report.REPORT_FILES - new if replaced else ():
        (out / name).unlink(missing_ok=True)


def _print(result: RecordingFit, out: Path) -> None:
    """Print a fit and where it lies."""
    tables = [report.text_table(report.parameter_rows(result), right=(1,))]
    if kernels := report.kernel_rows(result):
        tables.append(report.text_table(kernels, right=()))
    click.echo("\n\n".join([*tables, report.text_table(report.score_rows(result.scores))]) + "\n")
    notes = (f"note: {note}" for note in result.notes)
    for line in filter(None, (result.verdict.sentence, report.sweep_line(result), *notes)):
        click.echo(line)
    click.echo(f"report and figures: {out / 'report.html'}, {out}{os.sep}*.png, *.svg\nfit: {out / 'fit.json'}")


@main.command()
@options.recording
@options.window(help="As for fit. Default: the first 70 %.")
@options.reading
@options.spikes
def ladder(file: Path, window: tuple[float, float] | None, reading: Given, spikes: Given) -> None:
    """Say which mechanisms a cell needs.

    Fits a plain neuron with escape noise, then adds currents and thresholds after spikes, a threshold that follows the
    voltage and currents that it opens, and prints what each is worth on unseen data, where it is kept if it gains:
    stimuli left out in turn, every other step that fires, or every fourth second.
    """
    rule, shown = SpikeRule(**spikes), sys.stderr.isatty()
    with stages(shown):
        stage("reading")
        recording = read_recording(file, **reading)
        stage("models")
        found = model_ladder(recording, window=window, spike_rule=rule, progress=shown)
    rows = [("model, each with those kept above it", "bits per spike", "voltage explained", "")]
    rows += [
        (r.name, f"{r.held_out:.3f}", f"{100.0 * r.explained:.1f} %", "kept" if r.taken else "") for r in found.rungs
    ]
    click.echo(f"{report.text_table(rows)}\n\n{found.sentence}")
    for note in spike_notes(recording, rule):
        click.echo(f"note: {note}")


@main.command()
@options.recording
@options.out_folder(required=True, help="Folder for fit.json, report and figure.")
@click.option("--tau-m", type=float, help="Membrane time constant, ms; fitted where not given.")
@click.option("--r-m", default=0.1, help="Membrane resistance, GΩ.")
@click.option("--v-rest", default=-70.0, help="Resting potential, mV.")
@options.seed
@options.current_corrections
def fi(file: Path, out: Path, tau_m: float | None, r_m: float, v_rest: float, seed: int, corrected: Given) -> None:
    """Fit a neuron to firing rates.

    FILE is a .csv with the columns current_pA and rate_Hz. Prints the f-I curve beside the fitted one. A recording of
    current steps has its membrane in it too: jaxlif fit.
    """
    if file.suffix.lower() != ".csv":
        raise ValueError(f"{file}: a .csv of rates is expected; a recording of current steps is for jaxlif fit")
    corrections = Corrections(**corrected)
    start = 20.0 if tau_m is None else tau_m
    membrane = LIFParams(tau_m=start, r_m=r_m, v_rest=v_rest, v_th=v_rest + 20.0, v_reset=v_rest)
    membrane.check()
    with _results(out) as folder:
        rates = read_rates(file, corrections)
        result = fit_rates(rates.currents, rates.rates, membrane, free_tau_m=tau_m is None, seed=seed)
        data = {"name": file.name, "sha256": rates.sha256, "corrections": corrections.given()}
        result = replace(result, data=data)
        report.write_report(result, folder)
        result.save(folder)
    columns = (result.curve[name] for name in ("current_pA", "rate_Hz", "fitted_rate_Hz"))
    rows = [tuple(f"{x:.4g}" for x in row) for row in zip(*columns, strict=True)]
    click.echo(report.text_table([("current (pA)", "rate (Hz)", "fitted (Hz)"), *rows]) + "\n")
    _print(result, out)


for command in (advise, export, inspect, predict, simulate):
    main.add_command(command)

if __name__ == "__main__":
    import_module("jaxlif.cli").main()  # by its name, under which other processes find what they are sent
