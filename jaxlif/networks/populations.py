"""Populations and their projections: a network as one cell, whose cost follows its spikes.

``build`` in ``builder.py`` makes it; ``activity.py`` runs it and looks at what it did. Populations whose neurons are of
one kind are one group, integrated together. What a spike causes is added to a line of arrivals, one place for each
receptor of each neuron and each step that is to come, so that every synapse has a delay of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif import checks
from jaxlif.networks.connectivity import SLAB
from jaxlif.networks.drives import Drive as Outside
from jaxlif.networks.drives import check_drive
from jaxlif.networks.groups import (
    Drawn,
    Group,
    PopulationOutput,
    PopulationParams,
    PopulationState,
    PreparedPopulations,
    at_voltage,
    require_shapes,
    spread,
    voltage,
)
from jaxlif.networks.layers import within as named
from jaxlif.networks.sparse import deliver
from jaxlif.neurons import cell as protocol
from jaxlif.neurons.wrappers import EscapeNoise, waiting_times
from jaxlif.simulation import segmented
from jaxlif.synapses import TsodyksMarkram

_BLOCK = 64  # steps whose random numbers are drawn at once


@dataclass(frozen=True)
class PopulationNetwork:
    r"""Populations of neurons whose spikes reach one another after the delay of each synapse.

    A spike at the end of step n adds its weight to a receptor at the end of step n + delay/dt. The input is a current,
    pA, for all neurons alike, [] in a step, or a dict of them by population, [] or [n] each.

    Args:
        groups: the populations.
        sizes: by projection, its name and its number of synapses.
        targets: by projection, the population and the receptor that it reaches.
        max_lag: the longest delay, steps.
        drives: what comes from outside, such as :class:`PoissonDrive`.
        short_term: the projections whose synapses tire or warm up, each with its source: they have rows of the table of
            their own, behind those of all neurons, through which what is released goes instead of spikes.
        interpolate: let delays lie between steps: a spike is then two parts, as in :class:`Delayed`, and delays have a
            gradient. Otherwise they are whole numbers of steps.

    Source: Morrison et al. 2005, doi:10.1162/0899766054026648 (rings of arrivals, and cost that follows the spikes).
    """

    groups: tuple[Group, ...]
    sizes: tuple[tuple[str, int], ...]
    targets: tuple[tuple[str, str], ...]
    max_lag: int
    drives: tuple[tuple[str, Outside], ...] = ()
    short_term: tuple[tuple[str, str], ...] = ()
    interpolate: bool = False
    takes: ClassVar[None] = None

    @property
    def dt(self) -> float:
        """Step, ms."""
        return self.groups[0].cell.dt

    @property
    def size(self) -> int:
        """The number of neurons."""
        return sum(group.size for group in self.groups)

    @property
    def population_sizes(self) -> dict[str, int]:
        """The number of neurons of each population."""
        return {name: n for group in self.groups for name, n in zip(group.names, group.sizes, strict=True)}

    @property
    def ports(self) -> int:
        """The number of receptors of all neurons."""
        return sum(len(group.receptors) * group.size for group in self.groups)

    @property
    def places(self) -> dict[str, dict[str, slice]]:
        """By population and receptor, its places among all that arrives in a step."""
        found, start = {}, 0
        for group in self.groups:
            for name, part in group.parts.items():
                starts = [start + k * group.size for k in range(len(group.receptors))]
                own = [slice(s + part.start, s + part.stop) for s in starts]
                found[name] = dict(zip(group.receptors, own, strict=True))
            start += len(group.receptors) * group.size
        return found

    def check(self, params: PopulationParams) -> None:
        """Raise ValueError where a concrete parameter breaks a rule."""
        if isinstance(params, PreparedPopulations):
            return
        checks.require_params(self, params, PopulationParams)
        sizes, groups = self.population_sizes, {name: group for group in self.groups for name in group.names}
        synapses, rest = [*dict(self.sizes)], {"drives": [*dict(self.drives)], "short_term": [*dict(self.short_term)]}
        for field, names in ({"neurons": [*groups], "weight": synapses, "delay": synapses} | rest).items():
            if {*(found := getattr(params, field))} != {*names}:
                raise ValueError(f"{field} has {[*found]}: it must have {names}")
        for name, group in groups.items():
            with named(name):
                group.check(params.neurons[name], sizes[name])
        for (name, count), (target, receptor) in zip(self.sizes, self.targets, strict=True):
            with named(name):
                self._check_synapses(params.weight[name], params.delay[name], count)
                groups[target].check_weight(receptor, params.weight[name])
        for name, drive in self.drives:
            with named(name):
                require_shapes(params.drives[name], sizes[drive.population])
                check_drive(drive, params.drives[name], self.dt)
                if drive.receptor:
                    groups[drive.population].check_weight(drive.receptor, params.drives[name].weight)
        for name, source in self.short_term:
            with named(name):
                require_shapes(params.short_term[name], sizes[source])

    def _check_synapses(self, weight: Any, delay: Any, count: int) -> None:
        for field, value, unit in (("weight", weight, ""), ("delay", delay, "ms")):
            checks.require_finite(field, value, unit)
            if jnp.shape(value) not in ((), (count,)):
                raise ValueError(
                    f"{field} {list(jnp.shape(value))}: it must be one number or that of each of {count} synapses"
                )
        if checks.concrete(delay):
            value = np.asarray(delay)
            rule = f"delay must be from dt = {self.dt:g} to the longest, {self.max_lag * self.dt:g} ms"
            checks.require(self._lag_is(self._in_reach, value), "delay", value, "ms", rule)
            if not self.interpolate:
                rule = f"delay must be a whole number of steps of dt = {self.dt:g} ms, or interpolate=True"
                checks.require(self._lag_is(_whole, value), "delay", value, "ms", rule)

    def _in_reach(self, lag: Any) -> Any:
        return (lag > 1.0 - 1e-6) & (lag < self.max_lag * (1.0 + 1e-6))  # more than single precision rounds

    def _lag_is(self, rule: Callable[[np.ndarray], np.ndarray], delay: np.ndarray) -> np.ndarray:
        """Say of which delays a rule holds in steps; in parts, for numbers of 64 bits of all synapses pile up."""
        flat = delay.reshape(-1)
        parts = [rule(flat[i : i + SLAB].astype(float) / self.dt) for i in range(0, len(flat), SLAB)]
        return np.concatenate([np.ones(0, bool), *parts]).reshape(delay.shape)

    def prepare(self, params: Any) -> Any:
        """Return what a loop needs: the neurons of each group together, and each synapse's weight and place."""
        if isinstance(params, PreparedPopulations):
            return params
        neurons = tuple(protocol.prepared(g.cell, g.merge(params.neurons)) for g in self.groups)
        weight, target = self._synapses(params)
        rest = {name: getattr(params, name) for name in ("drives", "short_term", "key")}
        return PreparedPopulations(neurons=neurons, weight=weight, target=target, **rest)

    def _synapses(self, params: PopulationParams) -> tuple[Array, Array]:
        """Return weights [n, K] and places on the line [n, K]; of interpolated delays [n, 2 K]."""
        table, dtype = params.table, protocol.state_dtype(params.neurons, params.weight)

        def _every(values: dict[str, Any], none: float) -> Array:
            every = [jnp.broadcast_to(jnp.asarray(values[name], dtype), (n,)) for name, n in self.sizes]
            return jnp.concatenate([*every, jnp.full((1,), none, dtype)])  # of no synapse

        every = _every(params.delay, self.dt) / self.dt
        every = every if self.interpolate else jnp.rint(jax.lax.stop_gradient(every))
        # While tracing nothing was checked, and a delay may have no place on the line.
        weight = jnp.where(self._in_reach(every), _every(params.weight, 0.0), jnp.nan)[table.synapse]
        lag, receptor = every[table.synapse], jnp.asarray(table.receptor)
        if not self.interpolate:
            return weight, receptor + self.ports * (jnp.maximum(lag.astype(jnp.int32), 1) - 1)
        # The last interval is closed: a delay of exactly the longest lies at its end.
        before = jnp.clip(jnp.floor(jax.lax.stop_gradient(lag)).astype(jnp.int32), 1, max(self.max_lag - 1, 1))
        share = lag - before.astype(lag.dtype)
        place = receptor + self.ports * (before - 1)
        return jnp.concatenate([(1.0 - share) * weight, share * weight], axis=1), jnp.concatenate(
            [place, place + self.ports], axis=1
        )

    def init_state(self, params: Any, x: Any) -> PopulationState:
        """Return the neurons at rest, on whose way nothing is."""
        params, dtype = self.prepare(params), protocol.state_dtype(params)
        currents, neurons = self.currents(x, dtype), []
        for group, own in zip(self.groups, params.neurons, strict=True):
            arriving = jnp.zeros((len(group.receptors) * group.size,), dtype)
            current = jnp.concatenate([currents[name] for name in group.names])
            neurons.append(group.cell.init_state(own, group.input(arriving, current, jnp.zeros_like(current))))
        line = jnp.zeros((2 * self.max_lag * self.ports,), dtype)
        # A step before the first gives the drives a state.
        drives = self.draw(params, jnp.asarray(-1, jnp.int32)).drives
        plastic = tuple(
            self._markram.init_state(params.short_term[name], jnp.zeros((self.population_sizes[source],), dtype))
            for name, source in self.short_term
        )
        return PopulationState(tuple(neurons), line[: self.ports], line, jnp.zeros((), jnp.int32), drives, plastic)

    def with_voltages(self, state: PopulationState, v: dict[str, Any]) -> PopulationState:
        """Return the state with other voltages, mV, by population a number or [n]."""
        neurons = []
        for group, own in zip(self.groups, state.neurons, strict=True):
            changed = voltage(own)
            for name in v.keys() & set(group.names):
                changed = changed.at[group.parts[name]].set(v[name])
            neurons.append(at_voltage(own, changed))
        return state._replace(neurons=tuple(neurons))

    def step(self, params: Any, state: PopulationState, x: Any) -> tuple[PopulationState, PopulationOutput]:
        """Advance one step under the currents ``x``."""
        params = self.prepare(params)
        return self._advance(params, state, (x, self.draw(params, state.time)))

    def scan(
        self, params: Any, state: PopulationState, inputs: Any, *, unroll: int = 1
    ) -> tuple[PopulationState, PopulationOutput]:
        """Advance through ``inputs`` [T, ...]."""
        return self.observe(params, state, inputs, lambda _, output: output, unroll=unroll)

    def observe(
        self, params: Any, state: PopulationState, inputs: Any, look: Callable[..., Any], *, unroll: int = 1
    ) -> tuple[PopulationState, Any]:
        """Advance through ``inputs`` [T, ...], and keep what ``look(state, output)`` returns of each step."""
        params = self.prepare(params)

        @partial(jax.checkpoint, prevent_cse=False)
        def _step(state: PopulationState, x: Any) -> tuple[PopulationState, Any]:
            state, output = self._advance(params, state, x)
            return state, look(state, output)

        def _block(state: PopulationState, inputs: Any) -> tuple[PopulationState, Any]:
            steps = checks.length("inputs", inputs, "steps")
            # Random numbers of many steps at once cost a fifth of those of one step after the other.
            drawn = jax.vmap(partial(self.draw, params))(state.time + jnp.arange(steps, dtype=jnp.int32))
            return jax.lax.scan(_step, state, (inputs, drawn), unroll=unroll)

        return segmented(_block, state, inputs, even_parts(checks.length("inputs", inputs, "steps"), _BLOCK))

    def _advance(self, params: Any, state: PopulationState, x: Any) -> tuple[PopulationState, PopulationOutput]:
        """Advance one step under the currents and random numbers ``x``."""
        after, output, rows = self.integrate(params, state, x)
        position = state.time % self.max_lag
        line = self.shifted(state.line, position == 0)
        line = deliver(line, params.weight, rows, params.target, position * self.ports)
        # What is read is carried, not read when it is needed: it lets the compiler keep the line where it is.
        return after._replace(line=line, arriving=self.due(line, position)), output

    def integrate(self, params: Any, state: PopulationState, x: Any) -> tuple[PopulationState, PopulationOutput, Array]:
        """Advance all but the line one step; return the output, and what goes through each row of the table too."""
        drives, arriving, currents = self._driven(params, state, x)
        neurons, outputs, start = [], [], 0
        for i, group in enumerate(self.groups):
            stop = start + len(group.receptors) * group.size
            current = jnp.concatenate([currents[name] for name in group.names])
            own = group.input(arriving[start:stop], current, x[1].noise[i])
            after, output = group.cell.step(params.neurons[i], state.neurons[i], own)
            neurons.append(after)
            outputs.append(output)
            start = stop
        output = self._output(outputs)
        plastic, released = self._released(params, state, output)
        rows = jnp.concatenate([*(o.spikes for o in outputs), *released])
        after = state._replace(neurons=tuple(neurons), time=state.time + 1, drives=drives, short_term=plastic)
        return after, output, rows

    def shifted(self, line: Array, moves: Array) -> Array:
        """Return the line as it is, or moved by the longest delay: one of twice that moves once in that time."""
        half = self.max_lag * self.ports

        def _shift(line: Array) -> Array:
            return jnp.concatenate([line[half:], jnp.zeros((half,), line.dtype)])

        moved: Array = jax.lax.cond(moves, _shift, lambda line: line, line)
        return moved

    def due(self, line: Array, position: Array) -> Array:
        """Return what arrives at the end of the step after that at a position of the line, [P]."""
        return jax.lax.dynamic_slice_in_dim(line, position * self.ports, self.ports)

    @property
    def _markram(self) -> TsodyksMarkram:
        return TsodyksMarkram(self.dt)

    def _released(self, params: Any, state: PopulationState, output: PopulationOutput) -> tuple[Any, list[Array]]:
        """Return the state of synapses that tire, and the shares that their spikes release, [n] each."""
        pairs = zip(self.short_term, state.short_term, strict=True)
        steps = [self._markram.step(params.short_term[name], s, output.spikes[source]) for (name, source), s in pairs]
        return tuple(after for after, _ in steps), [released for _, released in steps]

    def _driven(self, params: Any, state: PopulationState, x: Any) -> tuple[Any, Array, dict[str, Array]]:
        """Return the drives' states, and what arrives and the currents with what they give in this step."""
        arriving, currents, after = state.arriving, self.currents(x[0], state.arriving.dtype), []
        for (name, drive), before, drawn in zip(self.drives, state.drives, x[1].drives, strict=True):
            kept, value = drive.advance(params.drives[name], before, drawn, self.dt)
            after.append(kept)
            if drive.receptor is None:
                currents[drive.population] += value
            else:
                arriving = arriving.at[self.places[drive.population][drive.receptor]].add(value)
        return tuple(after), arriving, currents

    def draw(self, params: Any, time: Array) -> Drawn:
        """Return all random numbers of a step, which follow from the key and the time alone."""
        sizes, dtype = self.population_sizes, params.weight.dtype
        keys = [
            jax.random.fold_in(jax.random.fold_in(params.key, i), time)
            for i in range(len(self.drives) + len(self.groups))
        ]
        drives = tuple(
            drive.draw(params.drives[name], key, jnp.zeros((sizes[drive.population],), dtype), self.dt)
            for (name, drive), key in zip(self.drives, keys, strict=False)
        )
        noise = tuple(
            waiting_times(key, (group.size,)).astype(dtype) if isinstance(group.cell, EscapeNoise) else ()
            for group, key in zip(self.groups, keys[len(self.drives) :], strict=True)
        )
        return Drawn(drives, noise)

    def currents(self, x: Any, dtype: Any) -> dict[str, Array]:
        """Return the current into the neurons of each population, [n]."""
        sizes = self.population_sizes
        if not isinstance(x, dict):
            if jnp.ndim(x):
                raise ValueError(f"input {list(jnp.shape(x))}: a step takes one number, or a dict by population")
            x = dict.fromkeys(sizes, x)
        if unknown := sorted(x.keys() - sizes):
            raise ValueError(f"input {unknown[0]!r}: the populations are {', '.join(sizes)}")
        return {name: spread(name, x.get(name, 0.0), n, dtype) for name, n in sizes.items()}

    def _output(self, outputs: list[Any]) -> PopulationOutput:
        parts = [(name, part, o) for g, o in zip(self.groups, outputs, strict=True) for name, part in g.parts.items()]
        return PopulationOutput({n: o.spikes[p] for n, p, o in parts}, {n: o.v[p] for n, p, o in parts})


def _whole(lag: np.ndarray) -> np.ndarray:
    near: np.ndarray = np.abs(lag - np.rint(lag)) < 1e-6 * lag
    return near


def even_parts(steps: int, most: int) -> int:
    """Return the length of parts, at most so many steps, such that none is left over where that is possible."""
    # A part of another length is compiled once more.
    return next((n for n in range(min(most, steps), most // 4, -1) if steps % n == 0), min(most, steps))
