"""The one container of a fit: recorded sweeps as a recipe, a judge and a prediction see them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, Self, TypeVar

import jax
import numpy as np

from jaxlif.neurons.leaky import LeakyParams
from jaxlif.neurons.lif import LIFParams
from jaxlif.neurons.mechanisms import Mechanism
from jaxlif.recordings import Recording
from jaxlif.simulation import simulate

_R = TypeVar("_R", bound=Recording)

SEGMENT = 2**15  # steps: of all that is longer
COARSE = 0.2001  # ms: steps this long do for a competition of starts


@dataclass(frozen=True, eq=False)
class Drift:
    r"""Terms of single sweeps: each rests at :math:`v_{rest} + o_s` and receives the current :math:`g_s I`."""

    offset: np.ndarray  # o, [sweeps], mV
    gain: np.ndarray  # g, [sweeps]

    @classmethod
    def none(cls, num_sweeps: int) -> Self:
        """Return sweeps that do not differ."""
        return cls(np.zeros(num_sweeps), np.ones(num_sweeps))

    @classmethod
    def of_rest(cls, rest: np.ndarray, v_rest: float) -> Self:
        """Return the terms of sweeps whose rest was measured, [sweeps], mV."""
        return cls(rest - v_rest, np.ones(len(rest)))

    def select(self, sweeps: np.ndarray) -> "Drift":
        """Return the terms of some sweeps."""
        return Drift(self.offset[sweeps], self.gain[sweeps])

    def current(self, current: np.ndarray) -> np.ndarray:
        """Return what reaches the cell of a current [sweeps, T], pA."""
        return np.asarray(self.gain[:, None] * current)

    def driven(self, params: LIFParams | LeakyParams, recording: _R) -> _R:
        r"""Return a recording whose current holds the terms: :math:`g_s I + o_s / r_m`, the same to the membrane."""
        shift = (self.offset / float(params.r_m))[:, None]
        return recording.part(np.s_[:, :], current=self.current(recording.current) + shift)


@dataclass(frozen=True, eq=False, repr=False)
class Data(Recording):
    """A recording as a fit sees it: held current, voltage without the electrode, and known spikes, all [sweeps, T]. It
    is made of a :class:`jaxlif.Recording`, which was checked, and so checks nothing itself.
    """

    voltage: np.ndarray
    spikes: np.ndarray = field(kw_only=True)
    # The sweeps' own terms, or None where they do not differ.
    drift: Drift | None = field(default=None, kw_only=True)
    # The mean of the resting potentials that were measured, from which the offsets count, mV; None: it is to be fitted.
    v_rest: float | None = field(default=None, kw_only=True)
    # The samples that count, [sweeps, T] or [T]; all by default.
    judged: np.ndarray = field(default_factory=lambda: np.ones((), bool), kw_only=True)
    # Samples that a layout for a compiled loop has room for: a fit to more of the recording finds its program compiled.
    length: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "judged", np.broadcast_to(self.judged, self.spikes.shape))

    @classmethod
    def of(cls, recording: Recording, spikes: np.ndarray, **more: Any) -> Self:
        """Return a recording's data with its spikes [sweeps, T]; ``more`` are other fields."""
        held = {f.name: getattr(recording, f.name) for f in fields(Recording)}
        return cls(**held | {"voltage": recording.measured_voltage(), "spikes": spikes} | more)

    @property
    def terms(self) -> Drift:
        """The terms of the sweeps: none where they do not differ."""
        return Drift.none(self.num_sweeps) if self.drift is None else self.drift

    @property
    def whole(self) -> tuple[float, float]:
        """All of the time, ms."""
        return self.start, self.start + self.duration

    def steps(self, time: float) -> int:
        """Return a duration in ms as a number of samples."""
        return round(time / self.dt)

    def samples(self, window: tuple[float, float]) -> slice:
        """Return a window in ms as a slice of samples."""
        first, last = (self.steps(t - self.start) for t in window)
        return slice(first, last)

    def part(self, index: Any, **changes: Any) -> Self:
        """Return a part of every array by its index [sweeps, T], with the terms of its sweeps."""
        rows = {name: getattr(self, name)[index] for name in ("current", "voltage", "spikes", "judged")}
        drift = self.drift and self.drift.select(index[0])
        return replace(self, **rows | {"drift": drift} | changes)

    def coarser(self, longest: float = COARSE) -> Self:
        """Return the data at a whole multiple of dt up to a step, ms: means of the current, ends of the rest."""
        factor = int(longest / self.dt + 1e-9)
        if factor < 2:
            return self
        steps = self.num_steps // factor * factor
        current, spikes, judged = (
            x[:, :steps].reshape(len(x), -1, factor) for x in (self.current, self.spikes, self.judged)
        )
        rows: dict[str, Any] = {"spikes": spikes.any(axis=2), "judged": judged.all(axis=2)}
        rows |= {"current": current.mean(axis=2), "voltage": self.voltage[:, factor - 1 : steps : factor]}
        return replace(self, **rows, dt=factor * self.dt, length=0)

    def judging(self, judged: np.ndarray) -> Self:
        """Return the data with other samples that count, booleans [sweeps, T] or [T]."""
        return replace(self, judged=judged)


@dataclass(frozen=True)
class Options:
    """What was asked of a fit."""

    window: tuple[float, float]  # the part of the time to fit, ms
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # of all parameters
    start: LIFParams | None = None
    coupling: bool | None = None  # whether a threshold follows the voltage; None: unseen data decide
    mechanisms: tuple[Mechanism, ...] = ()  # that an adaptive neuron has in any case, each as it starts
    drift: bool = False  # whether each sweep has an offset and a gain of its own
    seed: int = 0
    progress: bool = False

    def inside(self, **values: float) -> dict[str, float]:
        """Return starting values inside their bounds: each itself where it is, else the middle of its interval."""
        middle = {name: 0.5 * sum(self.bounds[name]) for name in values}
        legal = {name: self.bounds[name][0] < value < self.bounds[name][1] for name, value in values.items()}
        return {name: float(value) if legal[name] else middle[name] for name, value in values.items()}


class Stimulation(NamedTuple):
    """A current in numbers: mean and standard deviation, pA; correlation time and duration over all sweeps, ms."""

    mean: float
    sd: float
    tau: float
    duration: float


class Uncertainty(NamedTuple):
    """What is known about the n free parameters of a fit, beside their values.

    ``intervals``: by name the 95 % interval, in the parameter's unit; ``covariance`` [n, n] of ``names`` in free
    coordinates (logarithms of what is positive, jumps at the end of the refractory period); ``information`` [2, n, n]
    of the voltage and of the spikes in the same coordinates, and ``dispersion`` of both: how many times more the score
    scatters than that information says; ``voltage_error``: standard deviation of recorded from model voltage, mV;
    ``notes``: what is not determined, in words; ``stimulus``: the current that was fitted.
    """

    names: tuple[str, ...]
    intervals: dict[str, tuple[float, float]]
    covariance: np.ndarray
    information: np.ndarray
    dispersion: tuple[float, float]
    voltage_error: float
    notes: tuple[str, ...]
    stimulus: Stimulation

    @classmethod
    def unknown(cls, names: tuple[str, ...]) -> "Uncertainty":
        """Return that of parameters of which nothing is known."""
        nothing = np.full((len(names),) * 2, np.nan)
        stimulus = Stimulation(np.nan, np.nan, np.nan, np.nan)
        return cls(names, {}, nothing, np.stack([nothing] * 2), (np.nan, np.nan), np.nan, (), stimulus)

    @property
    def correlations(self) -> np.ndarray:
        """Correlations [n, n] of ``names`` in free coordinates."""
        sd = np.sqrt(np.diag(self.covariance))
        return np.asarray(self.covariance / np.outer(sd, sd))


class Outcome(NamedTuple):
    """What a recipe found."""

    params: LIFParams | LeakyParams
    warnings: tuple[str, ...] = ()
    curve: dict[str, list[float]] = {}  # for steps: the f-I table with the fitted rates
    fitted_sweeps: np.ndarray | slice = slice(None)  # whose voltage was fitted
    spike_cut: tuple[int, int] | None = None  # samples around a spike that were not, where they are not the recording's
    intervals: Mapping[str, tuple[float, float]] = {}
    refit: "Callable[[Data, Options], Outcome] | None" = None  # how to go on from here with more data
    uncertainty: Uncertainty | None = None
    drift: Drift | None = None
    bits_per_spike: float | None = None


def with_spikes(data: Data, window: tuple[float, float]) -> Data:
    """Return the data in a window, ms, which must hold a spike."""
    if not data.spikes[:, data.samples(window)].any():
        raise ValueError(f"window = {window[0]:g} to {window[1]:g} ms: no spike falls into this window")
    return data.window(*window)


# --- segments of a few lengths: what a fit compiles and holds does not grow with every length -----------------


def padded_length(steps: int) -> int:
    """Return the next of the lengths that programs are compiled for, four in an octave: at most a quarter more."""
    grain = 1 << max(0, (steps - 1).bit_length() - 3)
    return -(-steps // grain) * grain


def cut(arrays: Any) -> Iterator[tuple[slice, Any]]:
    """Cut arrays [T, ...] into segments of one length, the last filled up with zeros; yield each with its place."""
    steps = len(jax.tree.leaves(arrays)[0])
    size = padded_length(min(steps, SEGMENT))
    for first in range(0, steps, size):
        place = slice(first, min(first + size, steps))
        yield place, jax.tree.map(lambda x, place=place: filled(x[place], size), arrays)


def filled(x: np.ndarray, length: int) -> np.ndarray:
    """Return an array [T, ...] with zeros up to a length."""
    return x if len(x) == length else np.concatenate([x, np.zeros((length - len(x), *x.shape[1:]), x.dtype)])


def simulated(cell: Any, params: Any, inputs: Any, state: Any) -> Iterator[tuple[slice, Any]]:
    """Simulate inputs [T, ...] in segments, the state handed on; yield the place of each and its outputs."""
    for place, part in cut(inputs):
        state, outputs = simulate(cell, params, part, state)
        count = place.stop - place.start
        yield place, jax.tree.map(lambda y, count=count: np.asarray(y)[:count], outputs)
