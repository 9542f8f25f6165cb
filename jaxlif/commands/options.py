"""The arguments and options that several commands have."""

from collections.abc import Callable
from functools import reduce, wraps
from pathlib import Path
from typing import Any

import click

from jaxlif.recordings.spike_detection import METHODS

recording = click.argument("file", type=click.Path(path_type=Path))
recordings = click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
sweeps = click.option("--sweeps", metavar="N,N-N", help="Which sweeps to read, numbered from 0. Default: all.")
source = click.option(
    "--from-electrode",
    metavar="NAME",
    help="Which electrode of an .nwb file, or channel of an .abf file (V2, or V2,I1 with its current), to read where"
    " there are several.",
)
seed = click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of everything random."
)
current = click.option(
    "--current",
    type=click.Choice(["recorded", "commanded"]),
    help="Which current to take from an .abf file; by default the recorded one where there is one.",
)

fit_file = click.argument("fit_file", metavar="FIT", type=click.Path(path_type=Path))

_SPIKE_OPTIONS = (
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


def spikes(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of the spike rule, and those that were used as the dictionary ``spike_rule``."""

    @wraps(command)
    def _gathered(*args: Any, **kwargs: Any) -> None:
        given = {name: kwargs.pop(name) for name in ("threshold", "method", "width", "dead_time")}
        command(*args, spike_rule={n: value for n, value in given.items() if value is not None}, **kwargs)

    return reduce(lambda decorated, option: option(decorated), reversed(_SPIKE_OPTIONS), _gathered)
