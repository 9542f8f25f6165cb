"""The options that commands share, their types, and one line for everything that a user can cause."""

import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial, reduce, wraps
from pathlib import Path
from typing import Any

import click
from click.exceptions import BadParameter, Exit, UsageError

from jaxlif.recordings import SpikeRule
from jaxlif.recordings.spikes import METHODS
from jaxlif.recordings.units import NO_CORRECTIONS

INTERRUPTED = 128 + signal.SIGINT  # the exit status of a command that Ctrl-C ended
Given = dict[str, Any]  # options that were given, by the keyword of what takes them
# What the library calls a keyword, in backquotes, is here an option.
_OPTIONS = {"electrode_channel": "from-electrode"} | {
    n: n.replace("_", "-") for n in ("sweeps", "model", *vars(NO_CORRECTIONS))
}


class Commands(click.Group):
    """Commands whose errors are one line and exit status 2, and whose warnings are one line each."""

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

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command within what turns errors and warnings into lines."""
        try:
            with noted_warnings() as notes:
                super().invoke(ctx)
        except UsageError as error:
            error.ctx = None  # with it click prints two lines more
            raise
        except BrokenPipeError:
            raise  # whoever read our output has gone: nothing to explain
        except KeyboardInterrupt as error:
            click.echo("interrupted", err=True)
            raise Exit(INTERRUPTED) from error
        except (ValueError, OSError, ImportError) as error:
            raise UsageError(with_options(" ".join(str(error).split()))) from error
        for note in notes:
            click.echo(f"warning: {note}", err=True)


def _not_lost(unraisable: Any) -> None:
    """Send an interrupt again that came where Python ignores exceptions, such as JAX's part of a garbage collection."""
    if unraisable.exc_type is KeyboardInterrupt:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(unraisable)


@contextmanager
def noted_warnings() -> Iterator[list[str]]:
    """Collect the warnings of a block as lines of text."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield notes
    notes += dict.fromkeys(with_options(str(w.message)) for w in caught if issubclass(w.category, UserWarning))


def with_options(text: str) -> str:
    """Return a text with the options of the command line in place of the library's keywords."""
    return reduce(lambda found, names: found.replace(f"`{names[0]}`", f"--{names[1]}"), _OPTIONS.items(), text)


def _window(text: str) -> tuple[float, float]:
    """Read "0:10", "0:10s" or "0:10000ms" as a window, in ms."""
    digits = r"(\d+\.?\d*|\.\d+)"
    found = re.fullmatch(rf"\s*{digits}\s*:\s*{digits}\s*(ms|s)?\s*", text)
    if found is None:
        raise BadParameter(f"{text!r}: write START:STOP in seconds, such as 0:10, or with a unit, 0:10000ms")
    factor = 1.0 if found[3] == "ms" else 1000.0
    return factor * float(found[1]), factor * float(found[2])


def interval(text: str) -> tuple[str, tuple[float, float]]:
    """Read "tau_m=5:40"."""
    name, _, ends = text.partition("=")
    low, colon, high = ends.partition(":")
    if not colon:
        raise BadParameter(f"{text!r}: write NAME=LOW:HIGH, such as tau_m=5:40")
    return name.strip(), (click.FLOAT(low), click.FLOAT(high))


def electrode(text: str) -> Any:
    """Read "auto", "none", a resistance or the path of a file."""
    if text in ("auto", "none"):
        return text if text == "auto" else None
    try:
        return float(text)
    except ValueError as error:
        if not (path := Path(text)).exists():
            raise BadParameter(f"{text!r}: give auto, none, a resistance in GΩ or a file that is there") from error
        return path


def _sweeps(text: str) -> list[int]:
    """Read "0,2-5" as the sweeps 0, 2, 3, 4 and 5."""
    numbers: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if found is None or int(found[2] or found[1]) < int(found[1]):
            raise BadParameter(f"{text!r}: write numbers from 0 and ranges, such as 0,2-5")
        numbers += range(int(found[1]), int(found[2] or found[1]) + 1)
    return numbers


def _gathered(keyword: str, names: Iterable[str], *options: Callable[..., Any]) -> Callable[..., Any]:
    """Make one decorator of options; the command gets as one dict, under ``keyword``, what was given of them."""

    def _decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def _command(**given: Any) -> Any:
            named = {name: value for name in names if (value := given.pop(name, None)) is not None}
            return command(**given, **{keyword: named})

        return reduce(lambda decorated, option: option(decorated), reversed(options), _command)

    return _decorate


def _corrections(quantity: str, unit: str) -> list[Callable[..., Any]]:
    """Return the options for what a file says wrongly of a quantity."""
    gain = f"Factor to the {quantity}; 0.1 where it was stored ten times too large."
    return [
        click.option(f"--{quantity}-unit", help=f"{quantity} in this unit, whatever the file says."),
        click.option(f"--{quantity}-gain", type=float, help=gain),
        click.option(f"--{quantity}-offset", type=float, help=f"Added to the {quantity} after that, {unit}."),
    ]


file = click.Path(path_type=Path)
recording = click.argument("file", type=file)
fit_file = click.argument("fit_file", metavar="FIT", type=file)
seed = click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Seed of everything random.")
window = partial(click.option, "--window", "--train", type=_window, metavar="A:B")
out_folder = partial(click.option, "--out", type=click.Path(file_okay=False, path_type=Path))
out_file = partial(click.option, "--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
current_corrections = _gathered("corrected", vars(NO_CORRECTIONS), *_corrections("current", "pA"))
reading = _gathered(
    "reading",
    ("current", "sweeps", "electrode_channel", *vars(NO_CORRECTIONS)),
    click.option("--current", type=click.Choice(["recorded", "commanded"]), help="Which to take from an .abf file."),
    click.option("--sweeps", type=_sweeps, metavar="N,N-N", help="Which to read, from 0. Default: all."),
    click.option(
        "--from-electrode", "electrode_channel", metavar="NAME", help="Of an .nwb file, or channel of an .abf file."
    ),
    *_corrections("voltage", "mV"),
    *_corrections("current", "pA"),
)
spikes = _gathered(
    "spikes",
    vars(SpikeRule()),
    click.option(
        "--spike-threshold",
        "threshold",
        type=float,
        help="Level that a spike crosses upwards, mV. Default: any level, by rise and fall.",
    ),
    click.option("--spike-slope", "slope", type=float, help="Rate of its rise, mV/ms [found in the data]."),
    click.option("--spike-height", "height", type=float, help="Its least rise and fall, mV [15; below a level 10]."),
    click.option(
        "--spike-method", "method", type=click.Choice(METHODS), help="Mark the crossing, or the foot [level]."
    ),
    click.option("--spike-width", "width", type=float, help="Time in which a spike falls back, ms [20]."),
    click.option("--dead-time", type=float, help="Spikes closer to the last one are not counted, ms [0.5]."),
)
