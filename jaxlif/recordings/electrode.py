"""What the electrode adds to a voltage, estimated and taken away: active compensation, or a series resistance."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jaxlif.checks import not_negative
from jaxlif.recordings.notes import COARSE, is_sampled, undisturbed
from jaxlif.recordings.protocol import is_step_protocol
from jaxlif.recordings.recording import Recording, repeats
from jaxlif.recordings.spikes import SpikeRule

LONGEST = 150.0  # ms: lags of the whole kernel, membrane included
ELECTRODE = 7.0  # ms: lags within which the electrode's own kernel ends
MEMBRANE = 3.0  # ms: lags from which on the kernel is the membrane's alone
LEAST = 10  # samples away from spikes for each knot of the kernel
NOTHING = 1e-3  # GΩ, below any pipette's: what is left of none, or of one that was balanced
STEADY = 10.0  # an electrode that is this many times larger in one sweep than in another is none


@dataclass(frozen=True, eq=False)
class Electrode:
    r"""A linear electrode: it adds :math:`U_n = \sum_k K_k I_{n-k}` to the membrane's voltage.

    Args:
        kernel: K [lags], GΩ for one sample; its sum is the electrode's resistance.
        dt: sampling interval, ms.
        source: where it was estimated: "electrode trace", "recording" or "given".

    Example:
        >>> Electrode(np.array([0.006, 0.002]), 0.1, "given").drop(np.array([[0.0, 100.0, 0.0]])).round(9).tolist()
        [[0.0, 0.6, 0.2]]

    Source: Brette et al. 2008, doi:10.1016/j.neuron.2008.06.021.
    """

    kernel: Float[np.ndarray, " lags"]
    dt: float
    source: str

    @classmethod
    def series(cls, resistance: float, dt: float) -> "Electrode":
        """Return an electrode that is a plain series resistance, GΩ; one that is negative is refused."""
        return cls(np.array([float(not_negative("series resistance", resistance, "GΩ"))]), dt, "given")

    @property
    def resistance(self) -> float:
        """Resistance of the electrode, GΩ."""
        return float(self.kernel.sum())

    def at(self, dt: float) -> "Electrode":
        """Return the electrode at another sampling interval, ms: its response to a step is the same there."""
        if len(self.kernel) == 1 or np.isclose(dt, self.dt):
            return replace(self, dt=dt)  # a series resistance answers at once
        settled = np.concatenate([[0.0], np.cumsum(self.kernel)])
        lags = dt * np.arange(np.ceil(len(self.kernel) * self.dt / dt - 1e-9) + 1)
        return replace(self, kernel=np.diff(np.interp(lags, self.dt * np.arange(len(settled)), settled)), dt=dt)

    def drop(self, current: Float[np.ndarray, "*sweeps T"]) -> Float[np.ndarray, "*sweeps T"]:
        """Return the voltage, mV, that the electrode adds under a ``current``, pA, that was constant before it."""
        past = np.repeat(current[..., :1], len(self.kernel) - 1, axis=-1)
        padded = np.concatenate([past, current], axis=-1)
        return np.apply_along_axis(np.convolve, -1, padded, self.kernel, mode="valid")


def estimate_electrode(recording: Recording, spikes: Bool[np.ndarray, "sweeps T"] | None = None) -> Electrode:
    r"""Estimate the electrode of a recording: from its subthreshold electrode trace, else from its own sweeps.

    The response to the current's increments is regressed as a kernel of 150 ms, linear between knots that grow apart.
    Beyond 3 ms it is the membrane's, an exponential; what is left below 7 ms is the electrode's. Where dt is 0.5 ms or
    more an electrode is faster than a sample and later lags are dendrites: only what is left in the sample itself is
    the electrode's, of which the membrane has half a step's share where the current is known at the samples alone.

    Spikes [sweeps, T] are left out where the recording itself is used. The kernel is not forced to be positive. Where
    the current does not vary fast enough to tell electrode and membrane apart, or what is estimated has no positive
    resistance or one that differs tenfold between sweeps, that is a ValueError.

    Source: Brette et al. 2008, doi:10.1016/j.neuron.2008.06.021; Pozzorini et al. 2015,
    doi:10.1371/journal.pcbi.1004275 (the regression on increments).
    """
    spikes, source = (spikes, "recording") if recording.electrode_current is None else (None, "electrode trace")
    current, voltage = (
        (recording.current, recording.measured_voltage())
        if recording.electrode_current is None or recording.electrode_voltage is None
        else (recording.electrode_current[None], recording.electrode_voltage[None])
    )
    kernel, (lowest, highest), each = _kernels(current, voltage, spikes, recording)
    if kernel.sum() <= 0:
        if highest > -NOTHING:
            raise ValueError(f"its resistance is not told from 0 ({1e3 * lowest:.3g} to {1e3 * highest:.3g} MΩ)")
        raise ValueError(f"its resistance was estimated as {1e3 * kernel.sum():.3g} MΩ: it must be above 0")
    if min((high for _, high in each), default=1.0) <= max((low for low, _ in each), default=0.0) / STEADY:
        low, high = min(sum(ends) / 2 for ends in each), max(sum(ends) / 2 for ends in each)
        listed = f"{1000.0 * low:.3g} MΩ in one sweep and {1000.0 * high:.3g} MΩ in another"
        raise ValueError(f"its resistance was estimated as {listed}: they must not differ {STEADY:g} times")
    return Electrode(kernel, recording.dt, source)


class Removed(NamedTuple):
    """A recording without the electrode's drop, the electrodes by the sweeps they belong to, and notes."""

    recording: Recording
    electrodes: tuple[tuple[tuple[int, ...], Electrode], ...]
    notes: tuple[str, ...]


def remove_electrode(
    recording: Recording, spikes: Bool[np.ndarray, "sweeps T"], choice: Electrode | float | str | None
) -> Removed:
    """Take an electrode off the voltage of a recording with spikes [sweeps, T].

    "auto" estimates one electrode from the electrode trace, or else one for each stimulus from its repeats, but none
    from steps of current; or give an :class:`Electrode`, a series resistance in GΩ, or None for none. Another choice is
    refused with a ValueError.
    """
    if choice is None:
        return Removed(recording, (), ())
    every = tuple(range(recording.num_sweeps))
    if choice == "auto" and recording.electrode_current is None:
        return _estimated(recording, spikes)
    if choice == "auto":
        choice = _of("the electrode's trace", recording, None)
    if isinstance(choice, str):
        rule = 'give "auto", None, a series resistance in GΩ, an Electrode, or a recording to estimate it from'
        raise ValueError(f"electrode = {choice!r}: {rule}")
    electrode = choice if isinstance(choice, Electrode) else Electrode.series(choice, recording.dt)
    return _applied(recording, [(every, electrode.at(recording.dt))], [])


def electrode_from(recording: Recording, rule: SpikeRule = SpikeRule()) -> Electrode:  # noqa: B008, a frozen value
    """Return the electrode of a recording that was made for it, such as of subthreshold noise, spikes left out."""
    found = _of(f"electrode = {recording.name or 'a recording'}", recording, rule.find(recording))
    return replace(found, source="electrode trace")


def _of(name: str, recording: Recording, spikes: np.ndarray | None) -> Electrode:
    try:
        return estimate_electrode(recording, spikes)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _estimated(recording: Recording, spikes: np.ndarray) -> Removed:
    found, notes = [], []
    if is_step_protocol(recording):  # a single edge in a sweep does not tell an electrode from the membrane
        return Removed(recording, (), ("no electrode was taken off the voltage: steps of current do not show one",))
    for group in repeats(recording):
        try:
            found.append((tuple(int(s) for s in group), estimate_electrode(recording.select(group), spikes[group])))
        except ValueError as error:
            notes.append(f"no electrode was taken off the voltage of {len(group)} sweeps: {error}")
    return _applied(recording, found, notes)


def _applied(recording: Recording, electrodes: list[tuple[tuple[int, ...], Electrode]], notes: list[str]) -> Removed:
    voltage = recording.measured_voltage().copy()
    for sweeps, electrode in electrodes:
        voltage[list(sweeps)] -= electrode.drop(recording.current[list(sweeps)])
    clean = replace(recording, voltage=voltage, electrode_current=None, electrode_voltage=None)
    return Removed(clean, tuple(electrodes), tuple(dict.fromkeys(notes)))


def _kernels(
    current: np.ndarray, voltage: np.ndarray, spikes: np.ndarray | None, recording: Recording
) -> tuple[np.ndarray, tuple[float, float], list[tuple[float, float]]]:
    """Return the electrode's kernel, the 95 % interval of its sum, and that of each sweep that tells it."""
    dt = recording.dt
    knots = _knots(dt)
    if current.shape[1] < 4 * knots[-1]:
        least = f"{4 * LONGEST:g} ms or more"
        raise ValueError(f"current has {current.shape[1] * dt:g} ms to a sweep: an electrode is estimated from {least}")
    rows = zip(current, voltage, undisturbed(spikes, current.shape, dt), strict=True)
    each = [_moments(*row, knots) for row in rows]
    is_held = dt >= COARSE and not is_sampled(recording, spikes)
    whole = _Moments(*map(sum, zip(*each, strict=True)))
    if whole.count < (needed := LEAST * len(whole.gram)):
        few = f"only {whole.count} samples lie away from spikes"
        raise ValueError(f"{few}, and an electrode is estimated from {needed}")
    if not whole.is_telling:
        raise ValueError(
            "current varies too slowly to tell the electrode from the membrane: give a series resistance, or none"
        )
    lags = np.arange(1 if dt >= COARSE else round(ELECTRODE / dt))
    weights = np.array([np.interp(lags, knots, row).sum() for row in np.eye(len(knots))])

    def _interval(moments: _Moments) -> tuple[float, float]:
        size = float(_electrode_share(moments.response, knots, dt, is_held=is_held).sum())
        margin = 1.96 * moments.error(weights)
        return size - margin, size + margin

    alone = [_interval(moments) for moments in each if moments.is_telling]
    return _electrode_share(whole.response, knots, dt, is_held=is_held), _interval(whole), alone


def _electrode_share(response: np.ndarray, knots: np.ndarray, dt: float, *, is_held: bool) -> np.ndarray:
    """Return what the membrane, an exponential beyond 3 ms, leaves of an impulse response [knots]."""
    late = knots * dt > MEMBRANE
    size, tau = _exponential(knots[late] * dt, response[late], np.gradient(knots.astype(float))[late])
    if dt >= COARSE:
        # A current that runs from sample to sample has charged the membrane for half a step.
        return response[:1] - size / (1.0 if is_held else 1.0 + np.exp(dt / tau))
    lags = np.arange(round(ELECTRODE / dt))
    return np.asarray(np.interp(lags, knots, response) - size * np.exp(-lags * dt / tau))


def _knots(dt: float) -> np.ndarray:
    """Return lags, in samples, between which the kernel is linear: every sample at first, then ever farther apart."""
    last = round(LONGEST / dt)
    knots, width = [0], 1.0
    while knots[-1] < last:
        knots.append(min(last, knots[-1] + max(1, round(width))))
        width *= 1.15
    return np.array(knots)


class _Moments(NamedTuple):
    """What sweeps tell of the increments of the voltage by those of the current, for a regression on a kernel."""

    gram: Any  # [knots + 1, knots + 1], a constant last
    projection: Any  # of the voltage, [knots + 1]
    square: Any  # of the voltage
    count: Any  # samples

    @property
    def is_telling(self) -> bool:
        """Whether the current varies fast enough, in enough samples."""
        return bool(self.count >= LEAST * len(self.gram) and np.linalg.cond(self.gram) <= 1e12)

    @property
    def response(self) -> np.ndarray:
        """The impulse response, [knots], GΩ for one sample of lag."""
        return np.asarray(np.linalg.solve(self.gram, self.projection)[:-1])

    def error(self, weights: np.ndarray) -> float:
        """Return the standard error of a weighted sum of the response."""
        solution = np.linalg.solve(self.gram, self.projection)
        variance = (self.square - solution @ self.projection) / self.count
        w = np.append(weights, 0.0)
        return float(np.sqrt(max(variance, 0.0) * (w @ np.linalg.solve(self.gram, w))))


def _moments(current: np.ndarray, voltage: np.ndarray, keep: np.ndarray, knots: np.ndarray) -> _Moments:
    rows = np.flatnonzero(keep[knots[-1] :]) + knots[-1]
    x = np.concatenate([_hats(current, rows, knots), np.ones((len(rows), 1))], axis=1)
    y = np.diff(voltage)[rows]
    return _Moments(x.T @ x, x.T @ y, y @ y, len(rows))


def _hats(current: np.ndarray, rows: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Return the response of the voltage's increments to a kernel that is 1 at one knot and 0 at the others: by parts,
    one that is linear between knots meets the means of the current over the lags between them.
    """
    total = np.concatenate([[0.0], np.cumsum(current)])
    ahead = total[rows[:, None] + 1 - knots[None]]
    means = (ahead[:, :-1] - ahead[:, 1:]) / np.diff(knots)
    first, last = current[rows + 1], current[rows - knots[-1]]
    rising = np.concatenate([first[:, None], means], axis=1)
    falling = np.concatenate([means, last[:, None]], axis=1)
    return np.asarray(rising - falling)


def _exponential(lags: np.ndarray, kernel: np.ndarray, widths: np.ndarray) -> tuple[float, float]:
    """Fit an exponential to the late kernel, each knot with the weight of its lags; tau by search, a by regression."""
    taus = np.geomspace(3.0, 120.0, 300)
    shapes = np.exp(-lags[None] / taus[:, None])
    sizes = (shapes @ (widths * kernel)) / (shapes**2 @ widths)
    errors = (widths * (kernel - sizes[:, None] * shapes) ** 2).sum(axis=1)
    best = int(np.argmin(errors))
    return float(sizes[best]), float(taus[best])
