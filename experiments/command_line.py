"""The command line that most experiments have: the whole run, or with --quick a smoke run that writes nothing."""

import argparse
from collections.abc import Callable
from typing import Any


def run_script(main: Callable[..., None], whole: Any, quick: Any, about: str) -> None:
    """Call ``main(config, write=...)`` as the command line asks.

    Args:
        main: the experiment.
        whole: its configuration.
        quick: that of a smoke run.
        about: the script's docstring, whose first line the help shows.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run of seconds that writes nothing")
    asked = parser.parse_args().quick
    main(quick if asked else whole, write=not asked)
