"""The files that commands read and write."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxlif.arguments import sweep_numbers
from jaxlif.recordings import Recording, read_recording
from jaxlif.recordings.units import NO_CORRECTIONS

_OPTIONS = {"sweeps": "sweeps", "electrode": "from-electrode"} | {
    name: name.replace("_", "-") for name in vars(NO_CORRECTIONS)
}


def read(file: Path, reading: dict[str, Any]) -> Recording:
    """Read a recording with the options of ``options.reading``."""
    with naming_options():
        return read_recording(file, **keywords_of(reading))


def keywords_of(reading: dict[str, Any]) -> dict[str, Any]:
    """Return the options of ``options.reading`` as keywords of :func:`jaxlif.read_recording`."""
    keywords = {"electrode" if name == "from_electrode" else name: value for name, value in reading.items()}
    return keywords | ({"sweeps": sweep_numbers(keywords["sweeps"])} if "sweeps" in keywords else {})


@contextmanager
def naming_options() -> Iterator[None]:
    """Let messages and warnings, which name keywords of Python in backquotes, name options of the command line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            yield
        except ValueError as error:
            raise ValueError(with_options(str(error))) from error
    for warning in caught:
        warnings.warn(with_options(str(warning.message)), warning.category, stacklevel=3)


def with_options(text: str) -> str:
    """Return a text with the options of the command line in place of the keywords in backquotes."""
    for name, option in _OPTIONS.items():
        text = text.replace(f"`{name}`", f"--{option}")
    return text
