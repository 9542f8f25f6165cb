"""Which of the two an amplifier held, the current or the voltage, and what is said where it was the voltage."""

from collections.abc import Sequence

import numpy as np

_BLOCK = 10.0  # ms of a median, which sees through capacitive transients and the amplifier's at spikes
_FOLLOWS = 0.95  # share of the variance from which on a current is a copy of its command
_RESPONDS = 0.1  # share from which on a voltage has to do with a command at all


def voltage_clamp(outputs: str) -> str:
    """Say why a file whose outputs are voltages is refused.

    Args:
        outputs: their names and units.
    """
    return (
        f"the output is a voltage ({outputs}): a voltage-clamp recording, where a fit needs an injected current; if it"
        " is current clamp under a wrong unit, say so with `current_unit`"
    )


def is_current_clamp(
    command: Sequence[np.ndarray], current: Sequence[np.ndarray], voltage: Sequence[np.ndarray], dt: float
) -> bool:
    """Say whether a command whose unit is a voltage was the current's: that follows it, and the voltage responds.

    In voltage clamp the voltage, where it was recorded, follows the command more closely than the current does.

    Args:
        command: one array a sweep, in any unit.
        current: as recorded.
        voltage: as recorded.
        dt: sampling interval, ms.
    """
    length = max(1, round(_BLOCK / dt))
    blocks = [np.concatenate([_medians(sweep, length) for sweep in sweeps]) for sweeps in (command, current, voltage)]
    if any(x.size < 3 or np.ptp(x) == 0 for x in blocks):
        return False
    with_current, with_voltage = (float(np.corrcoef(blocks[0], x)[0, 1] ** 2) for x in blocks[1:])
    return with_current > _FOLLOWS and with_current > with_voltage > _RESPONDS


def _medians(x: np.ndarray, length: int) -> np.ndarray:
    whole = x.size // length * length
    return np.median(x[:whole].reshape(-1, length), axis=1)
