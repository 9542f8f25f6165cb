"""Write what an experiment claims in the one form that the tables of ``RESULTS.md`` and the README are made from.

``results/<name>.json`` holds ``{"command", "device", "versions", "claims"}``, and each claim
``{"metric", "value", "unit", "target", "reached", "sd", "seeds"}``. Whether a target is reached is computed here from
value and target, never typed.
"""

import json
import operator
import os
import platform
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

RESULTS = Path(__file__).resolve().parent / "results"

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


def claim(
    metric: str,
    value: float,
    unit: str = "",
    target: str | None = None,
    *,
    sd: float | None = None,
    seeds: int | None = None,
) -> dict[str, Any]:
    """Make one claim and judge it.

    Args:
        metric: what was measured, in words.
        value: the number, or the mean over seeds.
        unit: unit of ``value``, "" for none.
        target: a comparison such as ">= 96" or "<= 3.1" in the same unit; None for a number without a target.
        sd: standard deviation over seeds, if there are several.
        seeds: the number of seeds, if there are any.

    Returns:
        The claim, with "reached" true, false or, without a target, None.

    Raises:
        ValueError: for a target of another form.

    Example:
        >>> claim("accuracy", 97.2, "%", ">= 96", sd=0.4, seeds=3)["reached"]
        True
    """
    value = float(value)
    spread = None if sd is None else float(sd)
    return {
        "metric": metric,
        "value": value,
        "unit": unit,
        "target": target,
        "reached": None if target is None else _reached(value, target),
        "sd": spread,
        "seeds": seeds,
    }


def over_seeds(metric: str, values: Sequence[float], unit: str = "", target: str | None = None) -> dict[str, Any]:
    """Make a claim of the mean of one number for each seed, with their standard deviation where there are several.

    Args:
        metric: what was measured, in words.
        values: the number of each seed.
        unit: their unit, "" for none.
        target: of the mean, as for :func:`claim`.

    Returns:
        The claim.

    Example:
        >>> over_seeds("accuracy", [96.0, 98.0], "%", ">= 96")["value"]
        97.0
    """
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return claim(metric, float(np.mean(values)), unit, target, sd=sd, seeds=len(values))


def write_claims(
    name: str,
    claims: Iterable[dict[str, Any]],
    figure: Any = None,
    *,
    folder: Path | str = RESULTS,
    command: str | None = None,
    could_not: Sequence[str] = (),
) -> Path:
    """Write ``<name>.json``, and ``<name>.png`` beside it.

    Each file is written under another name and then renamed, so that an interrupted run leaves the earlier result.

    Args:
        name: the experiment's name.
        claims: what :func:`claim` returned.
        figure: a Matplotlib figure, or None.
        folder: where to; ``experiments/results`` by default.
        command: how the experiment was run; by default this process's command line.
        could_not: what it was to measure and did not, a line each; where there is any, the file has it too.

    Returns:
        The path of the JSON file.

    Raises:
        ValueError: for a number that is not finite.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "command": command or _command(),
        "device": _device(),
        "versions": _versions(),
        "claims": list(claims),
    } | ({"could_not": list(could_not)} if could_not else {})
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    if figure is not None:
        _replace(folder / f"{name}.png", lambda path: figure.savefig(path, format="png", dpi=150))
    path = folder / f"{name}.json"
    _replace(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return path


def publish(name: str, claims: Iterable[dict[str, Any]], draw: Callable[[], Any], *, write: bool) -> None:
    """Print the claims, and where it is asked draw the figure and write both.

    Args:
        name: the experiment's name.
        claims: what :func:`claim` returned.
        draw: makes the figure.
        write: whether to write.
    """
    claims = list(claims)
    print(table(claims))
    if write:
        write_claims(name, claims, draw())


def table(claims: Iterable[dict[str, Any]]) -> str:
    """Return the claims as lines of text, one for each.

    Example:
        >>> print(table([claim("accuracy", 97.25, "%", ">= 96", sd=0.42, seeds=3)]))
        accuracy                                      97.2 ± 0.42 % (3 seeds)         >= 96  reached
    """
    return "\n".join(_line(c) for c in claims)


def recording_path(name: str) -> Path:
    """Return the path of a real recording, or stop with a line on where it is to be had.

    Args:
        name: its file name; see ``data.md``.
    """
    return _data_path("recordings", name)


def spiking_path(name: str) -> Path:
    """Return the path of a data set for spiking networks, or stop with a line on where it is to be had.

    Args:
        name: its file name; see ``data.md``.
    """
    return _data_path("spiking", name)


def _data_path(kind: str, name: str) -> Path:
    folder = os.environ.get("JAXLIF_DATA", "")
    path = Path(folder) / kind / name
    if not folder or not path.is_file():
        raise SystemExit(f"{name} is not there: JAXLIF_DATA must name a folder as in experiments/data.md")
    return path


def _line(c: dict[str, Any]) -> str:
    spread = "" if c["sd"] is None else f" ± {c['sd']:.2g}"
    seeds = "" if c["seeds"] is None else f" ({c['seeds']} seed{'s' * (c['seeds'] != 1)})"
    verdict = {True: "reached", False: "not reached", None: ""}[c["reached"]]
    number = f"{c['value']:.3g}{spread} {c['unit']}{seeds}"
    return f"{c['metric']:<45} {number:<30} {c['target'] or '':>6}  {verdict}".rstrip()


def _reached(value: float, target: str) -> bool:
    match = re.fullmatch(r"(>=|<=|>|<)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)", target.strip())
    if match is None:
        raise ValueError(f'target = {target!r}: target must be a comparison such as ">= 96"')
    return _COMPARISONS[match[1]](value, float(match[2]))


def _command() -> str:
    script = Path(sys.argv[0]).resolve()
    root = RESULTS.parent.parent
    shown = script.relative_to(root).as_posix() if script.is_relative_to(root) else script.name
    return " ".join(["python", shown, *sys.argv[1:]])


def _device() -> str:
    device = jax.devices()[0]
    return device.platform if device.device_kind == device.platform else f"{device.platform}: {device.device_kind}"


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("jax", "jaxlib", "optax", "numpy", "jaxlif")}
    return packages | {"python": platform.python_version()}


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
