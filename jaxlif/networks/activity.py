"""Run a network of populations, and look at what it did: rasters, rates, variability, correlations, spectra."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxlif import checks, stimulus
from jaxlif.compiled import compiled
from jaxlif.networks.builder import Network
from jaxlif.networks.groups import PopulationOutput, PopulationState, voltage
from jaxlif.networks.populations import PopulationNetwork, even_parts
from jaxlif.networks.probes import Probe, checked, recorded
from jaxlif.networks.sharded import Sharded, divide
from jaxlif.neurons import cell as protocol
from jaxlif.simulation import of_this_cell

_CHUNK = 2000  # steps a compiled call, at most
_EVIDENCE = 30  # spikes, of which a quarter of the time would have had ten: none by chance in 20 000 cases
_CELLS = 2**26  # spikes, 0 or 1, that one holds


class NetworkWarning(UserWarning):
    """A network that does nothing, or all that it can."""


@dataclass(frozen=True, eq=False)
class Activity:
    """What a network did from ``start`` to ``stop``, ms.

    ``times``, ms, and ``neurons`` are those of all spikes [S] by population, in order of time; ``traces`` what was
    recorded [samples, n] by population and variable, at ``sampled``, ms; ``state`` where the network stands at the end.
    """

    sizes: dict[str, int]
    start: float
    stop: float
    times: dict[str, np.ndarray]
    neurons: dict[str, np.ndarray]
    traces: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    sampled: np.ndarray | None = None
    state: PopulationState | None = field(default=None, repr=False)

    def since(self, start: float) -> "Activity":
        """Return what happened after a time, ms, such as that in which the network settles."""
        if not self.start <= start < self.stop:
            raise ValueError(f"start = {start:g} ms: it must be from {self.start:g} to below {self.stop:g} ms")
        # A spike at the end of a step belongs to what is before, however its time and this one are rounded.
        beyond = start + 1e-9 * max(1.0, self.stop)
        kept = {name: t > beyond for name, t in self.times.items()}
        times, neurons = ({name: x[name][kept[name]] for name in x} for x in (self.times, self.neurons))
        later = np.empty(0, bool) if self.sampled is None else self.sampled > beyond
        traces = {name: x[later] for name, x in self.traces.items()}
        sampled = None if self.sampled is None else self.sampled[later]
        return Activity(self.sizes, start, self.stop, times, neurons, traces, sampled, self.state)

    @property
    def rates(self) -> dict[str, float]:
        """Mean rate of each population's neurons, Hz."""
        seconds = (self.stop - self.start) / 1000.0
        return {name: len(t) / (self.sizes[name] * seconds) for name, t in self.times.items()}

    def trains(self, population: str) -> list[np.ndarray]:
        """Return the spike times of each neuron, ms."""
        neurons = self.neurons[population]
        order = np.argsort(neurons, kind="stable")
        ends = np.cumsum(np.bincount(neurons, minlength=self.sizes[population]))[:-1]
        return np.split(self.times[population][order], ends)

    def raster(self, **look: Any) -> Any:
        """Draw all spikes, by population, with what :func:`jaxlif.plotting.raster` takes; return its Axes."""
        from jaxlif import plotting  # Matplotlib is not loaded before there is a figure

        return plotting.raster({name: self.trains(name) for name in self.sizes}, **look)

    def figure(self, width: float = 2.0, window: float = 500.0) -> Any:
        """Draw spikes, rates in bins of ``width`` ms, CVs and spectra, by :func:`jaxlif.plotting.activity`."""
        from jaxlif import plotting

        rates = {name: self.rate(name, width) for name in self.sizes}
        cvs = {name: self.cvs(name) for name in self.sizes}
        window = min(window, width * int((self.stop - self.start) / width))
        spectra = {name: self.spectrum(name, width, window) for name in self.sizes}
        return plotting.activity({name: self.trains(name) for name in self.sizes}, rates, cvs, spectra)

    def cvs(self, population: str, at_least: int = 3) -> np.ndarray:
        """Return the coefficient of variation of the intervals of each neuron that has so many of them."""
        intervals = [np.diff(train) for train in self.trains(population)]
        return np.array([x.std() / x.mean() for x in intervals if len(x) >= at_least])

    def cv(self, population: str, at_least: int = 3) -> float:
        """Return the mean of :meth:`cvs`; nan for no neuron."""
        found = self.cvs(population, at_least)
        return float(found.mean()) if len(found) else float("nan")

    def counts(self, population: str, width: float) -> np.ndarray:
        """Return the spikes of each neuron in bins of ``width`` ms, [bins, n]; a last part of a bin is left out."""
        checks.positive("width", width, "ms")
        bins, n = int((self.stop - self.start) / width + 1e-6), self.sizes[population]
        # A spike at the end of a bin belongs to it, as one at the end of a step does to the step.
        which = np.ceil((self.times[population] - self.start) / width - 1e-6).astype(int) - 1
        inside = (which >= 0) & (which < bins)
        flat = np.bincount(which[inside] * n + self.neurons[population][inside], minlength=bins * n)
        return flat.reshape((bins, n))

    def rate(self, population: str, width: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the middles of bins, ms, and the population's rate in them, Hz."""
        mean = self.counts(population, width).mean(axis=1) * 1000.0 / width
        return self.start + width * (np.arange(len(mean)) + 0.5), mean

    def correlation(self, population: str, width: float, most: int = 500) -> float:
        """Return the mean correlation of spike counts in bins of ``width`` ms, over all pairs of up to ``most`` neurons
        that spiked; nan where there is no pair.
        """
        counts = self.counts(population, width)
        counts = counts[:, counts.std(axis=0) > 0.0][:, :most].astype(float)
        n = counts.shape[1]
        if n < 2:
            return float("nan")
        z = (counts - counts.mean(axis=0)) / counts.std(axis=0)
        # The variance of the sum of n standardised counts is n + n (n - 1) times their mean correlation.
        return float((z.sum(axis=1).var() / n - 1.0) / (n - 1))

    def spectrum(self, population: str, width: float = 1.0, window: float = 500.0) -> tuple[np.ndarray, np.ndarray]:
        """Return frequencies, Hz, and the power of the population's rate, Hz²/Hz, by Welch's method."""
        from scipy.signal import welch  # takes half a second to load

        _, rate = self.rate(population, width)
        if len(rate) < window / width:
            raise ValueError(f"window = {window:g} ms: it must fit into the {self.stop - self.start:g} ms there are")
        found = welch(rate, fs=1000.0 / width, nperseg=round(window / width), detrend="constant")
        return found[0], found[1]


def run(
    network: Network,
    duration: float,
    *,
    inputs: Any = 0.0,
    record: Sequence[Probe] = (),
    every: float | None = None,
    mesh: Mesh | None = None,
) -> Activity:
    """Run a network for ``duration`` ms from its state.

    Args:
        network: what :func:`build` returns; ``network._replace(state=activity.state)`` goes on where it stood.
        duration: ms, a whole number of steps.
        inputs: currents, pA: one number, or by population a number, [T] or [T, n].
        record: what to keep beside the spikes.
        every: interval of what is recorded, ms, a whole number of steps; each step by default.
        mesh: devices with one axis, over which the neurons, and the synapses that end on them, are divided; the
            spikes are the same.

    Returns:
        The :class:`Activity`. Time goes on from that of the network's state.

    Warns:
        NetworkWarning: a population that falls silent, or fires as fast as its refractoriness lets it.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import Population, build
        >>> n = Population(size=2, cell=jl.LIF(dt=0.1), params=jl.LIFParams())
        >>> activity = run(build(jax.random.key(0), {"E": n}), 100.0, inputs=300.0)
        >>> activity.rates, activity.trains("E")[0][:2].round(1).tolist()
        ({'E': 100.0}, [7.0, 17.2])
    """
    cell, dt = network.cell, network.cell.dt
    steps = stimulus.num_steps(checks.positive("duration", duration, "ms"), dt)
    stride = 1 if every is None else stimulus.num_steps(checks.positive("every", every, "ms"), dt)
    record = tuple(checked(cell, probe) for probe in record)
    for probe in record:
        if [p[:2] for p in record].count(probe[:2]) > 1:
            raise ValueError(f"record: {probe.variable} of {probe.population} is there twice; name all neurons in one")
    given = _given(inputs, steps)
    checks.check_params(network.params)
    cell.check(network.params)
    state, spikes, seen = of_this_cell(network.state, jax.eval_shape(cell.init_state, network.params, 0.0)), [], []
    params = _prepare(cell, network.params)
    advance = partial(_advance, cell, record)
    if mesh is not None:
        over, params = divide(cell, network.params, params, mesh)
        state, given, advance = over.place(state), over.place(given), partial(_advance_over, over, record)
    begun = int(state.time)
    chunk = even_parts(steps, max(1, min(_CHUNK, _CELLS // cell.size)))
    waiting: tuple[int, Any] | None = None
    for first in range(0, steps, chunk):
        part = jax.tree.map(lambda x, first=first: x[first : first + chunk], given)
        state, now = advance(params, state, part)
        # While this part is computed, the one before is read.
        for found, traces in _read(waiting, stride):
            spikes.append(found)
            seen.append(traces)
        waiting = first, now
    for found, traces in _read(waiting, stride):
        spikes.append(found)
        seen.append(traces)
    state = state if mesh is None else jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), state)
    activity = _activity(cell, state, begun, steps, stride, spikes, seen, record)
    _warn(network, activity)
    return activity


@compiled(values=1, keep=16)
def _prepare(cell: PopulationNetwork, params: Any) -> Any:
    return cell.prepare(params)


@compiled(values=2, keep=16)
def _advance(cell: PopulationNetwork, record: tuple[Probe, ...], params: Any, state: Any, inputs: Any) -> Any:
    def _look(state: PopulationState, output: PopulationOutput) -> tuple[Any, Any]:
        spikes = jnp.concatenate([output.spikes[name] > 0.0 for group in cell.groups for name in group.names])
        return spikes, [recorded(cell, probe, state, output) for probe in record]

    return cell.observe(params, state, inputs, _look)


@compiled(values=2, keep=16)
def _advance_over(over: Sharded, record: tuple[Probe, ...], params: Any, state: Any, inputs: Any) -> Any:
    def _look(state: PopulationState, output: PopulationOutput) -> list[Any]:
        return [recorded(over.local, probe._replace(neurons=None), state, output) for probe in record]

    of = tuple(probe.population for probe in record)
    state, (spikes, traces) = over.observe(params, state, inputs, _look, of)
    chosen = [
        x if p.neurons is None else x[:, jnp.asarray(p.neurons, int)] for p, x in zip(record, traces, strict=True)
    ]
    return over.everywhere((state, (spikes, chosen)))


def _given(inputs: Any, steps: int) -> Any:
    """Return currents [T] or [T, n]."""

    def _one(name: str, value: Any) -> Any:
        value = np.asarray(checks.numbers(name, value, "pA", rank=(0, 1, 2)))
        if value.ndim and len(value) != steps:
            raise ValueError(f"{name} has {len(value)} steps: the run has {steps}")
        return np.broadcast_to(value, (steps,)) if value.ndim == 0 else value

    if isinstance(inputs, Mapping):
        return {name: _one(f"inputs[{name!r}]", value) for name, value in inputs.items()} or np.zeros(steps)
    return _one("inputs", inputs)


def _read(
    waiting: tuple[int, Any] | None, stride: int
) -> Iterator[tuple[tuple[np.ndarray, np.ndarray], list[np.ndarray]]]:
    """Yield the steps and neurons of the spikes of a part, and every so many of its traces."""
    if waiting is not None:
        first, (spikes, traces) = waiting
        step, neuron = np.divmod(np.flatnonzero(np.asarray(spikes)), spikes.shape[1])
        yield (step + first, neuron), [np.asarray(x)[(-first - 1) % stride :: stride] for x in traces]


def _activity(
    cell: PopulationNetwork,
    state: PopulationState,
    begun: int,
    steps: int,
    stride: int,
    spikes: list[tuple[np.ndarray, np.ndarray]],
    seen: list[list[np.ndarray]],
    record: tuple[Probe, ...],
) -> Activity:
    step, neuron = (np.concatenate(x) for x in zip(*spikes, strict=True))
    sizes, times, neurons, start = {}, {}, {}, 0
    for group in cell.groups:
        for name, part in group.parts.items():
            own = (neuron >= start + part.start) & (neuron < start + part.stop)
            times[name], neurons[name] = cell.dt * (begun + step[own] + 1), neuron[own] - start - part.start
            sizes[name] = part.stop - part.start
        start += group.size
    traces = {
        (probe.population, probe.variable): np.concatenate([part[i] for part in seen]) for i, probe in enumerate(record)
    }
    sampled = cell.dt * (begun + np.arange(stride, steps + 1, stride)) if record else None
    return Activity(sizes, cell.dt * begun, cell.dt * (begun + steps), times, neurons, traces, sampled, state)


def _warn(network: Network, activity: Activity) -> None:
    """Say which populations died, which fire as fast as they can, and which have left the numbers."""
    state: Any = activity.state
    for group, neurons in zip(network.cell.groups, state.neurons, strict=True):
        for name, part in group.parts.items():
            if not np.isfinite(np.asarray(voltage(neurons))[part]).all():
                _say(f"{name} has voltages that are no number: the network has exploded")
    late = activity.since(activity.start + 0.75 * (activity.stop - activity.start))
    for name, rate in late.rates.items():
        spikes = len(activity.times[name])
        if rate == 0.0 and spikes > _EVIDENCE:
            _say(f"{name} fell silent after {activity.times[name][-1]:g} ms")
        t_ref = getattr(protocol.innermost(network.params.neurons[name]), "t_ref", 0.0)
        interval = np.maximum(np.asarray(t_ref), network.cell.dt).mean()
        # Three spikes of each neuron: in less time one says nothing about their rate.
        if rate > 800.0 / interval and len(late.times[name]) >= 3 * activity.sizes[name]:
            _say(f"{name} fires at {rate:.0f} Hz, as fast as it can: the network has exploded")


def _say(message: str) -> None:
    warnings.warn(message, NetworkWarning, stacklevel=4)
