"""What the tests of the readers share: a small cell, and two ways through the door."""

import warnings

import numpy as np
import pytest

from jaxlif.recordings import read_recording

T = 50
CURRENT = np.arange(T, dtype=float)  # pA
VOLTAGE = -70.0 + 0.1 * CURRENT  # mV


def read(path, **settings):
    """Read, with any warning an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_recording(path, **settings)


def refused(path, **settings):
    """Return why a file is refused, in one line behind its name."""
    with pytest.raises(ValueError) as error:
        read_recording(path, **settings)
    message = str(error.value)
    assert "\n" not in message and message.startswith(f"{path.name}: ")
    return message.removeprefix(f"{path.name}: ")
