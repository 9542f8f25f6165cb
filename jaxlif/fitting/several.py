"""Several recordings, fitted side by side: a bad one does not stop the others and is listed with its reason."""

import csv
import io
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from jaxlif.fitting.bounds import named_leaves, standard_name
from jaxlif.fitting.fit_recording import check_options, fit_recording
from jaxlif.fitting.result import KERNEL_TIMES, KERNELS, TERMS, RecordingFit
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.processes import cores, processes
from jaxlif.recordings import Recording, read_recording
from jaxlif.recordings.ibw import protocol_of
from jaxlif.stages import room, ticking

_Cell = TypeVar("_Cell")
_Source = Recording | str | Path | Sequence[str | Path]
_Outcomes = Iterator[tuple[str, RecordingFit | str]]

SCORES = ("rate_data", "rate_model", "coincidence_factor", "coincidence_factor_over_reliability", "md_star")
_ENDS = ("", "_low", "_high")


@dataclass(frozen=True)
class RecordingFits:
    """Fits of several recordings, by name."""

    fits: Mapping[str, RecordingFit]
    failed: Mapping[str, str]  # why there is none, in one line

    def table(self) -> dict[str, list[Any]]:
        """Return columns of one length: cell, the parameters, and the scores by which a fit is judged.

        Beside a parameter stand the ends of its 95 % interval, such as ``tau_m_low`` and ``tau_m_high``; of kernels
        their values and bands some time after a spike, such as ``eta_20ms``, stand for their terms. Scores are those of
        what was held out, or else of what was fitted; ``f_i_rmse`` is the error of an f-I curve in Hz. What a fit does
        not have, or does not determine, is None; what none has is no column. ``pandas.DataFrame`` takes it.
        """
        params = [_determined(fit) for fit in self.fits.values()]
        scores = [_main_scores(fit) for fit in self.fits.values()]
        columns: dict[str, list[Any]] = {"cell": list(self.fits)}
        for rows in (params, scores):
            columns |= {name: [row.get(name) for row in rows] for row in rows for name in row}
        return {name: column for name, column in columns.items() if any(value is not None for value in column)}

    def csv(self) -> str:
        """Return the table as text with units in its heading, each fit's verdict, and why other cells have none."""
        text, table = io.StringIO(), self.table()
        leaves = {name for fit in self.fits.values() for name in named_leaves(fit.params)}
        units = dict.fromkeys(("rate_data", "rate_model", "f_i_rmse"), "Hz")
        units |= {f"{name}{end}": standard_name(name)[1] for name in leaves for end in _ENDS}
        units |= {f"{k}_{t:g}ms{end}": standard_name(k)[1] for k in KERNELS for t in KERNEL_TIMES for end in _ENDS}
        heading = [f"{name} ({units[name]})" if units.get(name) else name for name in table]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*heading, "verdict", "notes", "failed"])
        for row, fit in zip(zip(*table.values(), strict=True), self.fits.values(), strict=True):
            writer.writerow([*row, fit.verdict.sentence, "; ".join(fit.notes), ""])
        writer.writerows([name, *[""] * (len(heading) + 1), reason] for name, reason in self.failed.items())
        return text.getvalue()


def _determined(fit: RecordingFit) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in named_leaves(fit.params).items():
        if name.startswith(TERMS):
            continue
        known = name not in fit.undetermined
        found[name] = value if known else None
        found[f"{name}_low"], found[f"{name}_high"] = fit.intervals.get(name, (None, None)) if known else (None, None)
    return found | _kernels(fit)


def _kernels(fit: RecordingFit) -> dict[str, float | None]:
    """Return the kernels of a fit and the ends of their bands at some times after a spike."""
    found: dict[str, float | None] = {}
    if not isinstance(fit.params, AdaptiveLIFParams):
        return found
    for kind in KERNELS:
        for t, *values in zip(KERNEL_TIMES, *fit.kernel(kind, KERNEL_TIMES), strict=True):
            told = t > float(fit.params.t_ref) and getattr(fit.params, kind)
            known = [float(x) if told and np.isfinite(x) else None for x in values]
            found |= {f"{kind}_{t:g}ms{end}": x for end, x in zip(_ENDS, known, strict=True)}
    return found


def _main_scores(fit: RecordingFit) -> dict[str, Any]:
    judged = fit.scores.get("test_file", fit.scores.get("test", fit.scores.get("train", {})))
    # The voltage that a step protocol is fitted by is that of its subthreshold sweeps.
    explained = fit.scores.get("membrane", judged).get("voltage_variance_explained")
    found = {name: judged.get(name) for name in (*SCORES, "bits_per_spike")} | {"voltage_variance_explained": explained}
    return found | {"f_i_rmse": fit.scores.get("f_i", {}).get("rmse")}


def fit_recordings(
    recordings: Mapping[str, _Source] | Iterable[str | Path],
    model: str = "lif",
    *,
    executor: Executor | None = None,
    progress: bool = False,
    **options: Any,
) -> RecordingFits:
    """Fit a neuron to each of several recordings, as :func:`fit_recording` fits it to one.

    They are fitted side by side in processes of this machine, which share its cores, or wherever ``executor`` lets them
    run: what it is sent, a recording or a path and the options, can be pickled, and so can what comes back.

    Args:
        recordings: by name the recordings or their files, of which several or a folder are one cell; or files and
            folders, named as they are without their suffix.
        model: as for :func:`fit_recording`.
        executor: where to fit, any of ``concurrent.futures`` or alike, such as ``client.get_executor()`` of Dask or an
            ``MPIPoolExecutor``; ``ThreadPoolExecutor(1)`` stays in this process. Files have to be found there.
        progress: show a progress bar over the recordings.
        options: as for :func:`fit_recording`, the same for all, and so no ``test``, nor a recording as ``electrode``.

    Returns:
        The :class:`RecordingFits`. A recording that cannot be read or fitted, for which :func:`read_recording` or
        :func:`fit_recording` raises ValueError or OSError, is among the ``failed``; any other exception is raised.

    Raises:
        ValueError: for options that suit no recording, or two files of one name.

    Example:
        >>> import jax, numpy as np, jaxlif as jl
        >>> current = jl.stimulus.ornstein_uhlenbeck(jax.random.key(0), 180.0, 120.0, 5.0, 2000.0, 0.5)
        >>> _, output = jl.simulate(jl.LIF(dt=0.5), jl.LIFParams(tau_m=12.0), current)
        >>> good = Recording(current=current, voltage=output.v, spikes=output.spikes, dt=0.5)
        >>> silent = Recording(current=current, voltage=np.full(4000, -70.0), dt=0.5)
        >>> found = fit_recordings({"a": good, "b": silent, "c": "no.npz"})
        >>> found.table()["cell"], round(found.fits["a"].params.tau_m, 1)
        (['a'], 12.0)
        >>> found.failed["c"]
        'no.npz: no such file'
    """
    check_options(model, **{name: options[name] for name in ("start", "bounds", "rest", "drift") if name in options})
    for name in ("electrode", "test"):
        if isinstance(options.get(name), Recording):
            raise ValueError(f"{name} is a recording: it belongs to one cell, and `recordings` to several")
    cells = recordings if isinstance(recordings, Mapping) else named_files(recordings)
    return fit_each(cells, partial(_fit_one, model=model, options=options), executor=executor, progress=progress)


def _fit_one(_: str, cell: _Source, model: str, options: Mapping[str, Any]) -> RecordingFit:
    recording = cell if isinstance(cell, Recording) else read_recording(cell)
    return fit_recording(recording, model, **options)


def named_files(files: Iterable[str | Path]) -> dict[str, Path]:
    """Name each file as it is called without its suffix."""
    if isinstance(files, str | Path):
        raise ValueError(f"recordings = {str(files)!r}: several files are expected; one is for fit_recording")
    named: dict[str, Path] = {}
    protocols: dict[Any, Path] = {}
    for file in map(Path, files):
        name = file.name if file.is_dir() else file.stem
        if name in ("", ".", "..") or name.startswith(".jaxlif-") or "\\" in name:
            raise ValueError(f"{file} has the name {name!r}, which cannot be that of a folder: rename it")
        twin = next((other for known, other in named.items() if _folded(known) == _folded(name)), None)
        if twin is not None:
            raise ValueError(f"{twin} and {file} have one name, {name}: rename one, or fit them apart")
        if file.suffix.lower() == ".ibw" and (first := protocols.setdefault(protocol_of(file) or file, file)) != file:
            one = "either stands for all of them, and as sweeps of one cell they are fitted with --one-cell"
            raise ValueError(f"{first} and {file} are waves of one protocol: {one}")
        named[name] = file
    return named


def _folded(name: str) -> str:
    """Return a name as file systems may see it that tell neither case nor the composition of a letter."""
    return unicodedata.normalize("NFC", name).casefold()


def fit_each(
    cells: Mapping[str, _Cell],
    fit_one: Callable[[str, _Cell], RecordingFit],
    *,
    executor: Executor | None = None,
    jobs: int | None = None,
    progress: bool = False,
) -> RecordingFits:
    """Fit cells side by side; a ValueError or OSError of ``fit_one(name, cell)`` is the cell's and is noted. Without an
    executor so many ``jobs`` run at a time, by default one on each core; one alone runs here.
    """
    jobs = min(len(cells), jobs or cores())
    look: Any = {"disable": not progress, "unit": "cell", "desc": "cells"} | room()
    with nullcontext(executor) if executor or jobs < 2 else processes(jobs) as pool:
        with tqdm(_outcomes(cells, fit_one, pool), total=len(cells), **look) as bar, ticking(bar):
            found = dict(bar)
    fits = {name: found[name] for name in cells if isinstance(found[name], RecordingFit)}
    return RecordingFits(fits, {name: found[name] for name in cells if name not in fits})


def _outcomes(
    cells: Mapping[str, _Cell], fit_one: Callable[[str, _Cell], RecordingFit], executor: Executor | None
) -> _Outcomes:
    """Yield fits, or why there are none, as they come: from an executor, or one by one from this process."""
    if executor is None:
        yield from ((name, _tried(fit_one, name, cell)) for name, cell in cells.items())
        return
    waiting = {executor.submit(_tried, fit_one, name, cell): name for name, cell in cells.items()}
    try:
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    finally:  # of nothing, unless a bug has ended it
        for future in waiting:
            future.cancel()


def _tried(fit_one: Callable[[str, _Cell], RecordingFit], name: str, cell: _Cell) -> RecordingFit | str:
    """Return a fit, or in a line why there is none: what a process sends back must not be an error of any library."""
    try:
        return fit_one(name, cell)
    except (ValueError, OSError) as error:
        return " ".join(str(error).split()) or type(error).__name__
