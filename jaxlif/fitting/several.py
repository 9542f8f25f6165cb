"""Several recordings, fitted one after another: a bad one does not stop the others and is listed with its reason."""

import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from jaxlif.fitting.bounds import named_leaves
from jaxlif.fitting.fit_recording import check_options, fit_recording
from jaxlif.fitting.result import RecordingFit
from jaxlif.recordings import Recording, read_recording

_Cell = TypeVar("_Cell")

SCORES = ("rate_data", "rate_model", "coincidence_factor", "coincidence_factor_over_reliability", "md_star")


@dataclass(frozen=True)
class RecordingFits:
    """Fits of several recordings, by name."""

    fits: Mapping[str, RecordingFit]
    failed: Mapping[str, str]  # why there is none, in one line

    def table(self) -> dict[str, list[Any]]:
        """Return columns of one length: cell, the parameters, and the scores by which a fit is judged.

        Scores are those of what was held out, or else of what was fitted; ``f_i_rmse`` is the error of an f-I curve in
        Hz. What a fit does not have, or does not determine, is None; what none has is no column.
        ``pandas.DataFrame`` takes it as it is.
        """
        params = [_determined(fit) for fit in self.fits.values()]
        scores = [_main_scores(fit) for fit in self.fits.values()]
        columns: dict[str, list[Any]] = {"cell": list(self.fits)}
        for rows in (params, scores):
            columns |= {name: [row.get(name) for row in rows] for row in rows for name in row}
        return {name: column for name, column in columns.items() if any(value is not None for value in column)}


def _determined(fit: RecordingFit) -> dict[str, Any]:
    return {name: None if name in fit.undetermined else x for name, x in named_leaves(fit.params).items()}


def _main_scores(fit: RecordingFit) -> dict[str, Any]:
    judged = fit.scores.get("test", fit.scores.get("train", {}))
    # The voltage that a step protocol is fitted by is that of its subthreshold sweeps.
    explained = fit.scores.get("membrane", judged).get("voltage_variance_explained")
    found = {name: judged.get(name) for name in (*SCORES, "bits_per_spike")} | {"voltage_variance_explained": explained}
    return found | {"f_i_rmse": fit.scores.get("f_i", {}).get("rmse")}


def fit_recordings(
    recordings: Mapping[str, Recording | str | Path] | Iterable[str | Path],
    model: str = "lif",
    *,
    progress: bool = False,
    **options: Any,
) -> RecordingFits:
    """Fit a neuron to each of several recordings, as :func:`fit_recording` fits it to one.

    Args:
        recordings: by name the recordings or their files; or files, named as they are without their suffix.
        model: as for :func:`fit_recording`.
        progress: show a progress bar over the recordings.
        options: as for :func:`fit_recording`, the same for all.

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
    cells = recordings if isinstance(recordings, Mapping) else named_files(recordings)

    def _fit_one(_: str, cell: Recording | str | Path) -> RecordingFit:
        recording = cell if isinstance(cell, Recording) else read_recording(cell)
        return fit_recording(recording, model, **options)

    return fit_each(cells, _fit_one, progress=progress)


def named_files(files: Iterable[str | Path]) -> dict[str, Path]:
    """Name each file as it is called without its suffix."""
    if isinstance(files, str | Path):
        raise ValueError(f"recordings = {str(files)!r}: several files are expected; one is for fit_recording")
    named: dict[str, Path] = {}
    for file in map(Path, files):
        if file.stem in ("", ".", "..") or file.stem.startswith(".jaxlif-") or "\\" in file.stem:
            raise ValueError(f"{file} has the name {file.stem!r}, which cannot be that of a folder: rename it")
        twin = next((other for name, other in named.items() if _folded(name) == _folded(file.stem)), None)
        if twin is not None:
            raise ValueError(f"{twin} and {file} have one name, {file.stem}: rename one, or fit them apart")
        named[file.stem] = file
    return named


def _folded(name: str) -> str:
    """Return a name as file systems may see it that tell neither case nor the composition of a letter."""
    return unicodedata.normalize("NFC", name).casefold()


def fit_each(
    cells: Mapping[str, _Cell], fit_one: Callable[[str, _Cell], RecordingFit], *, progress: bool = False
) -> RecordingFits:
    """Fit cells one after another; a ValueError or OSError of ``fit_one(name, cell)`` is the cell's and is noted."""
    fits, failed = {}, {}
    for name, cell in tqdm(cells.items(), disable=not progress, unit="cell"):
        try:
            fits[name] = fit_one(name, cell)
        except (ValueError, OSError) as error:
            failed[name] = " ".join(str(error).split()) or type(error).__name__
    return RecordingFits(fits, failed)
