"""What a user can cause, said in one line."""

import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import click
from click.exceptions import Exit

from jaxlif.recordings.units import NO_CORRECTIONS

_OPTIONS = {"sweeps": "sweeps", "electrode_channel": "from-electrode", "model": "model"} | {
    n: n.replace("_", "-") for n in vars(NO_CORRECTIONS)
}
INTERRUPTED = 128 + signal.SIGINT  # the exit status of a command that Ctrl-C ended


class BadInput(click.ClickException):
    """One line on what is wrong, and exit status 2."""

    exit_code = 2


def clear_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what a user can cause into one line and exit status 2, and show warnings as one line each."""

    @wraps(command)
    def _wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            with noted_warnings() as notes:
                command(*args, **kwargs)
        except BrokenPipeError:
            raise  # whoever read our output has gone: nothing to explain
        except KeyboardInterrupt as error:
            click.echo("interrupted", err=True)
            raise Exit(INTERRUPTED) from error
        except (ValueError, OSError, ImportError) as error:
            raise BadInput(with_options(" ".join(str(error).split()))) from error
        for note in notes:
            click.echo(f"warning: {note}", err=True)

    return _wrapped


@contextmanager
def noted_warnings() -> Iterator[list[str]]:
    """Collect the warnings of a block as lines of text."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield notes
    notes.extend(dict.fromkeys(with_options(str(w.message)) for w in caught if issubclass(w.category, UserWarning)))


def with_options(text: str) -> str:
    """Return a text with the options of the command line in place of the keywords of Python in backquotes."""
    for name, option in _OPTIONS.items():
        text = text.replace(f"`{name}`", f"--{option}")
    return text


def refuse_options(why: str, **options: Any) -> None:
    """Refuse options that would be ignored."""
    for name, value in options.items():
        if value not in (None, ()):
            raise ValueError(f"--{name.replace('_', '-')} is {why}")
