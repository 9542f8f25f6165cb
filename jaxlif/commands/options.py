"""The arguments and options that several commands have."""

from collections.abc import Callable, Sequence
from functools import reduce, wraps
from pathlib import Path
from typing import Any

import click

from jaxlif.recordings.spikes import METHODS
from jaxlif.recordings.units import NO_CORRECTIONS

recording = click.argument("file", type=click.Path(path_type=Path))
recordings = click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
seed = click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of everything random."
)
fit_file = click.argument("fit_file", metavar="FIT", type=click.Path(path_type=Path))

_SPIKES = (
    click.option(
        "--spike-threshold", "threshold", type=float, show_default="0", help="Level that a spike crosses upwards, mV."
    ),
    click.option(
        "--spike-method",
        "method",
        type=click.Choice(METHODS),
        show_default="level",
        help="A spike is marked where the voltage crosses the level, or at the foot from which it rises at 20 mV/ms.",
    ),
    click.option("--spike-width", "width", type=float, show_default="20", help="Time in which a spike falls back, ms."),
    click.option(
        "--dead-time",
        type=float,
        show_default="0.5",
        help="Spikes closer to the last one are not counted, ms. All four: for predict as for the fit, by default.",
    ),
)


_WHAT = {
    "unit": "{quantity} in this unit, whatever the file says.",
    "gain": "Factor to the {quantity}; 0.1 where it was stored ten times too large.",
    "offset": "Added to the {quantity} after that, {unit}.",
}
_CORRECTIONS = [
    click.option(
        f"--{quantity}-{what}", type=str if what == "unit" else float, help=text.format(quantity=quantity, unit=unit)
    )
    for quantity, unit in (("voltage", "mV"), ("current", "pA"))
    for what, text in _WHAT.items()
]
_READING = [
    click.option(
        "--current",
        type=click.Choice(["recorded", "commanded"]),
        help="Which current to take from an .abf file; by default the recorded one where there is one.",
    ),
    click.option("--sweeps", metavar="N,N-N", help="Which sweeps to read, numbered from 0. Default: all."),
    click.option(
        "--from-electrode",
        metavar="NAME",
        help="Which electrode of an .nwb file, or channel of an .abf file (V2, or V2,I1 with its current), to read"
        " where there are several.",
    ),
    *_CORRECTIONS,
]


def _gathered(keyword: str, options: Sequence[Callable[..., Any]], names: Sequence[str]) -> Callable[..., Any]:
    """Make a decorator that adds options to a command, which receives those that were used as one dictionary."""

    def _decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def _with_dictionary(*args: Any, **kwargs: Any) -> None:
            given = {name: kwargs.pop(name) for name in names}
            command(*args, **{keyword: {n: value for n, value in given.items() if value is not None}}, **kwargs)

        return reduce(lambda decorated, option: option(decorated), reversed(options), _with_dictionary)

    return _decorate


# How spikes are found, and how a recording is read: dictionaries ``spike_rule`` and ``reading`` for the command.
spikes = _gathered("spike_rule", _SPIKES, ("threshold", "method", "width", "dead_time"))
reading = _gathered("reading", _READING, ("current", "sweeps", "from_electrode", *vars(NO_CORRECTIONS)))
