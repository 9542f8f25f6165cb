"""The arguments and options that several commands have."""

from pathlib import Path

import click

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
