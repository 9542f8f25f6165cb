"""The files that commands read and write."""

from pathlib import Path
from typing import Any

from jaxlif.arguments import sweep_numbers
from jaxlif.recordings import Recording, read_recording


def read(file: Path, reading: dict[str, Any]) -> Recording:
    """Read a recording with the options of ``options.reading``."""
    return read_recording(file, **keywords_of(reading))


def keywords_of(reading: dict[str, Any]) -> dict[str, Any]:
    """Return the options of ``options.reading`` as keywords of :func:`jaxlif.read_recording`."""
    keywords = {"electrode_channel" if name == "from_electrode" else name: value for name, value in reading.items()}
    return keywords | ({"sweeps": sweep_numbers(keywords["sweeps"])} if "sweeps" in keywords else {})
