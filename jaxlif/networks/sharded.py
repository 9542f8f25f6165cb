"""A network of populations over a mesh: each device has a part of every population, and the synapses that end on it.

Devices exchange spikes once in the shortest delay: before that, what one does reaches no other (Morrison et al. 2005,
doi:10.1162/0899766054026648). Sums are taken in the order of one device, and random numbers are those of the whole
network, so that the spikes are the same.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlif import checks
from jaxlif.networks.connectivity import SLAB
from jaxlif.networks.epoch import on_host, one_axis
from jaxlif.networks.groups import PopulationParams, PopulationState, PreparedPopulations, counts_kinds
from jaxlif.networks.populations import PopulationNetwork
from jaxlif.networks.sparse import deliver
from jaxlif.neurons import cell as protocol
from jaxlif.simulation import segmented

_BLOCK = 64  # steps whose random numbers are drawn at once, about
_KIND = "threefry2x32"  # of random key


class Shares(NamedTuple):
    """The parameters of the devices' parts, and those of all drives, from which the random numbers are drawn."""

    own: PreparedPopulations
    drives: dict[str, Any]


@dataclass(frozen=True)
class Sharded:
    """A network over a mesh; see :func:`divide`.

    Args:
        cell: the whole network.
        mesh: devices, on one axis.
        interval: steps between two exchanges, those of the shortest delay.
        specs: of each array of the parameters, how it lies on the devices.
    """

    cell: PopulationNetwork
    mesh: Mesh
    interval: int = 1
    specs: tuple[P, ...] = ()

    @property
    def local(self) -> PopulationNetwork:
        """The part on one device; where a population does not divide evenly, its last neuron fills it up."""
        devices = self.mesh.size
        groups = (replace(g, sizes=tuple(-(-n // devices) for n in g.sizes)) for g in self.cell.groups)
        return replace(self.cell, groups=tuple(groups))

    def neurons(self, *sizes: int) -> np.ndarray:
        """Return which neurons of populations, one after the other, each device has, [devices, n]."""
        devices, parts, start = self.mesh.size, [], 0
        for n in sizes:
            own = np.arange(devices * -(-n // devices)).reshape(devices, -1)
            parts.append(start + np.minimum(own, n - 1))
            start += n
        return np.concatenate(parts, axis=1)

    def ports(self) -> np.ndarray:
        """Return which receptors each device has, [devices, p]."""
        parts, start = [np.zeros((self.mesh.size, 0), int)], 0
        for group in self.cell.groups:
            own = self.neurons(*group.sizes)
            parts += [start + k * group.size + own for k in range(len(group.receptors))]
            start += len(group.receptors) * group.size
        return np.concatenate(parts, axis=1)

    def observe(
        self, params: Shares, state: PopulationState, inputs: Any, look: Callable[..., Any], of: tuple[str, ...]
    ) -> tuple[PopulationState, tuple[Array, list[Array]]]:
        """Advance the whole network's state through ``inputs`` [T, ...], and return it.

        With it come the spikes [T, N], and what ``look(state, output)`` returns on the devices, an array for each
        population in ``of``, put together [T, n].
        """
        self.cell.currents(jax.tree.map(lambda x: x[0], inputs), state.arriving.dtype)  # refuses what is for no neuron
        if isinstance(inputs, dict):
            each = {name: self.neurons(n) for name, n in self.cell.population_sizes.items()}
            inputs = {name: self.cut(x, each[name]) if x.ndim > 1 else x for name, x in inputs.items()}
        steps = max(1, _BLOCK // self.interval) * self.interval
        parts, (spikes, seen) = segmented(partial(self._part, params, look), self._divided(state), inputs, steps)
        sizes = self.cell.population_sizes
        traces = [_join(x, self.neurons(sizes[name])) for name, x in zip(of, seen, strict=True)]
        return self._joined(parts), (spikes, traces)

    def place(self, tree: Any) -> Any:
        """Put arrays of the host on every device."""
        return jax.tree.map(partial(_place, self, P()), tree)

    def everywhere(self, tree: Any) -> Any:
        """Have all of it on every device."""
        return jax.lax.with_sharding_constraint(tree, NamedSharding(self.mesh, P()))

    def cut(self, x: Array, index: np.ndarray) -> Array:
        """Give each device its part of the last axis."""
        flat = index.ravel()
        x = x if np.array_equal(flat, np.arange(x.shape[-1])) else x[..., flat]
        part: Array = jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, self.last(x)))
        return part

    def last(self, x: Any) -> P:
        """Say that the last axis lies over the devices."""
        return P(*[None] * (x.ndim - 1), *self.mesh.axis_names)

    def _by_owner(self, change: Callable[..., Any], groups: Any, drives: Any, short_term: Any = ()) -> Any:
        """Change what the neurons of each group hold, of each drive, and of the source of synapses that tire."""
        sizes = self.cell.population_sizes
        own = (self.neurons(*group.sizes) for group in self.cell.groups)
        driven = (self.neurons(sizes[drive.population]) for _, drive in self.cell.drives)
        tiring = (self.neurons(sizes[source]) for _, source in self.cell.short_term)
        pairs = ((groups, own), (drives, driven), (short_term, tiring))
        return [
            tuple(jax.tree.map(partial(change, index=i), x) for x, i in zip(held, index, strict=False))
            for held, index in pairs
        ]

    def _divided(self, state: PopulationState) -> PopulationState:
        """Give each device its part of a state; the line becomes [steps, ports]."""
        ports = self.ports()
        neurons, drives, short_term = self._by_owner(self.cut, state.neurons, state.drives, state.short_term)
        line = self.cut(state.line.reshape((-1, self.cell.ports)), ports)
        return PopulationState(neurons, self.cut(state.arriving, ports), line, state.time, drives, short_term)

    def _joined(self, state: PopulationState) -> PopulationState:
        """Return the whole network's state."""
        ports = self.ports()
        neurons, drives, short_term = self._by_owner(_join, state.neurons, state.drives, state.short_term)
        line = _join(state.line, ports).reshape(-1)
        return PopulationState(neurons, _join(state.arriving, ports), line, state.time, drives, short_term)

    def _part(self, params: Shares, look: Callable[..., Any], state: PopulationState, inputs: Any) -> Any:
        """Advance all devices some intervals, whose random numbers are drawn at once."""
        times = state.time + jnp.arange(checks.length("inputs", inputs, "steps"), dtype=jnp.int32)
        key = jax.random.wrap_key_data(params.own.key, impl=_KIND)
        drawn = jax.vmap(partial(self.cell.draw, replace(params.own, drives=params.drives, key=key)))(times)
        noise, drives, _ = self._by_owner(self.cut, drawn.noise, drawn.drives)
        given = inputs, drawn._replace(noise=noise, drives=drives)
        of_state = jax.tree.map(self.last, state)._replace(time=P())
        of_given = jax.tree.map(lambda x: self.last(x) if x.ndim > 1 else P(), given)
        of_params = jax.tree.unflatten(jax.tree.structure(params.own), self.specs)
        advance = jax.shard_map(
            partial(self._on_device, look),
            mesh=self.mesh,
            in_specs=(of_params, of_state, of_given),
            out_specs=(of_state, (P(), P(None, *self.mesh.axis_names))),
            check_vma=False,  # that all devices have the same spikes it cannot see
        )
        return advance(params.own, state, given)

    def _on_device(
        self, look: Callable[..., Any], params: PreparedPopulations, state: PopulationState, inputs: Any
    ) -> Any:
        shape = state.line.shape
        run = partial(self._interval, look, params)
        state, seen = segmented(run, state._replace(line=state.line.reshape(-1)), inputs, self.interval)
        return state._replace(line=state.line.reshape(shape)), seen

    def _interval(
        self, look: Callable[..., Any], params: PreparedPopulations, state: PopulationState, inputs: Any
    ) -> Any:
        """Advance one device for as long as no spike of now arrives; then exchange all, and put them on the line."""
        local, first, length = self.local, state.time, checks.length("inputs", inputs, "steps")
        last = first + (length - 1)
        # Where the line begins; no interval is longer than half of it, so that what is due lies on it to the end.
        begin, end = (time - time % local.max_lag for time in (first, last))
        line = local.shifted(state.line, begin == first)

        def _step(state: PopulationState, x: Any) -> tuple[PopulationState, Any]:
            after, output, rows = local.integrate(params, state, x)
            after = after._replace(arriving=local.due(line, state.time - begin))
            return after, (rows[: local.size] > 0.0, rows[local.size :], look(after, output))

        state, (own, released, seen) = jax.lax.scan(_step, state._replace(line=jnp.zeros(0)), inputs)
        spikes, rows = self._exchanged(own, released)

        def _deliver(line: Array, x: tuple[Array, Array]) -> tuple[Array, None]:
            return deliver(line, params.weight, x[0], params.target, (x[1] - end) * local.ports), None

        times = first + jnp.arange(length, dtype=jnp.int32)
        line, _ = jax.lax.scan(_deliver, local.shifted(line, begin < end), (rows, times))
        return state._replace(line=line, arriving=local.due(line, last - end)), (spikes, seen)

    def _exchanged(self, own: Array, released: Array) -> tuple[Array, Array]:
        """Return all devices' spikes [T, N], and what goes through all rows of the table [T, n]."""
        sizes, axis = self.cell.population_sizes, self.mesh.axis_names[0]
        spikes = self._in_order(jax.lax.all_gather(own, axis), [*sizes.values()])
        if not self.cell.short_term:
            return spikes, spikes
        released = self._in_order(jax.lax.all_gather(released, axis), [sizes[x] for _, x in self.cell.short_term])
        return spikes, jnp.concatenate([spikes.astype(released.dtype), released], axis=1)

    def _in_order(self, rows: Array, sizes: list[int]) -> Array:
        """Return what all devices have, [devices, T, n], in the order of the whole network, [T, N]."""
        parts, start = [], 0
        for n in sizes:
            own = -(-n // self.mesh.size)
            part = rows[:, :, start : start + own].swapaxes(0, 1)
            parts.append(part.reshape((part.shape[0], -1))[:, :n])
            start += own
        return jnp.concatenate(parts, axis=1)


def _first(index: np.ndarray) -> np.ndarray:
    """Return where each neuron is first among those of all devices."""
    return np.unique(index, return_index=True)[1]


def _join(x: Array, index: np.ndarray) -> Array:
    """Put the last axis together again."""
    return x[..., _first(index)]


# --- parameters -------------------------------------------------------------------------------------------


def divide(
    cell: PopulationNetwork, params: PopulationParams, prepared: PreparedPopulations, mesh: Mesh
) -> tuple[Sharded, Shares]:
    """Divide a network and its prepared parameters over a mesh.

    Raises:
        ValueError: for a mesh of several axes, a random key of another kind, and a parameter that cannot be divided.
    """
    if (kind := str(jax.random.key_impl(params.key))) != _KIND:
        rule = f"over a mesh it must be one of {_KIND}, whose numbers do not depend on where they are drawn"
        raise ValueError(f"key is one of {kind}: {rule}")
    whole = Sharded(cell, one_axis(mesh, "the neurons"))
    parts = (_neurons(whole, i, params, own) for i, own in enumerate(prepared.neurons))
    drives = {name: _each(whole, drive.population, prepared.drives[name]) for name, drive in cell.drives}
    tiring = {name: _each(whole, source, prepared.short_term[name]) for name, source in cell.short_term}
    weight, target, interval = _synapses(whole, on_host(prepared.weight), on_host(prepared.target))
    own = replace(prepared, neurons=tuple(parts), drives=drives, short_term=tiring, weight=weight, target=target)
    own = replace(own, key=_place(whole, P(), jax.random.key_data(own.key)))
    specs = tuple(x.sharding.spec for x in jax.tree.leaves(own))
    shares = Shares(own, jax.tree.map(partial(_place, whole, P()), prepared.drives))
    return replace(whole, interval=interval, specs=specs), shares


def _place(whole: Sharded, spec: P, x: Any) -> Any:
    return jax.device_put(on_host(x), NamedSharding(whole.mesh, spec))


def _cut(whole: Sharded, x: Any, index: np.ndarray) -> Any:
    x = on_host(x)
    return _place(whole, whole.last(x), x[..., index.ravel()])


def _each(whole: Sharded, population: str, params: Any) -> Any:
    """Divide what a drive, or a projection whose synapses tire, has for each neuron."""
    n = whole.cell.population_sizes[population]
    return jax.tree.map(
        lambda x: _cut(whole, x, whole.neurons(n)) if jnp.shape(x) == (n,) else _place(whole, P(), x), params
    )


def _neurons(whole: Sharded, i: int, params: PopulationParams, prepared: Any) -> Any:
    """Divide the prepared parameters of a group. Which are by neuron is seen by preparing those of one device."""
    group, local = whole.cell.groups[i], whole.local.groups[i]

    def _own(n: int, path: tuple[Any, ...], x: Any) -> Any:
        x = on_host(x)
        by_neuron = x.ndim > counts_kinds(path, group.synapse) and x.shape[-1] == n
        return x[..., whole.neurons(n)[0]] if by_neuron else x

    def _prepare() -> Any:
        each = zip(group.names, group.sizes, strict=True)
        own = {name: jax.tree_util.tree_map_with_path(partial(_own, n), params.neurons[name]) for name, n in each}
        return protocol.prepared(local.cell, local.merge(own))

    def _divided(x: Any, part: Any) -> Any:
        if jnp.shape(x) == part.shape:
            return _place(whole, P(), x)
        if (*x.shape[:-1], local.size) != part.shape or x.shape[-1] != group.size:
            raise ValueError(f"{', '.join(group.names)}: parameters {list(x.shape)} cannot be divided by neuron")
        return _cut(whole, x, whole.neurons(*group.sizes))

    return jax.tree.map(_divided, prepared, jax.eval_shape(_prepare))


def _synapses(whole: Sharded, weight: np.ndarray, target: np.ndarray) -> tuple[Array, Array, int]:
    """Give each device the synapses that end on it, in their order, [devices N, K]; find the shortest delay, steps."""
    ports, devices, local = max(whole.cell.ports, 1), whole.mesh.size, whole.local.ports
    owner, place = np.divmod(_first(whole.ports()), max(local, 1))
    owner, place = np.append(owner, devices), place.astype(np.int32)
    length = max(1, SLAB // weight.shape[1])
    slabs = [slice(i, i + length) for i in range(0, len(weight), length)]

    def _owners(rows: slice) -> np.ndarray:
        return np.where(weight[rows] != 0.0, owner[target[rows] % ports], devices)

    counts, soonest = np.zeros((len(weight), devices), int), whole.cell.max_lag - 1
    for rows in slabs:
        where = _owners(rows)
        for d in range(devices):
            counts[rows, d] = (where == d).sum(axis=1)
        soonest = min(soonest, np.min(target[rows][where < devices] // ports, initial=soonest))
    mine = [d for d, device in enumerate(whole.mesh.devices.flat) if device.process_index == jax.process_index()]
    shape = len(weight), max(1, counts.max())
    parts = {d: (np.zeros(shape, weight.dtype), np.zeros(shape, target.dtype)) for d in mine}
    for rows in slabs:
        where = _owners(rows)
        for d in mine:
            there, count = np.nonzero(where == d), counts[rows, d]
            column = np.arange(len(there[0])) - np.repeat(np.cumsum(count) - count, count)
            lag, port = np.divmod(target[rows][there], ports)
            parts[d][0][rows][there[0], column] = weight[rows][there]
            parts[d][1][rows][there[0], column] = lag * local + place[port]
    lies, held = NamedSharding(whole.mesh, P(*whole.mesh.axis_names)), [*whole.mesh.devices.flat]

    def _together(k: int) -> Array:
        pieces = [jax.device_put(parts[d][k], held[d]) for d in mine]
        return jax.make_array_from_single_device_arrays((devices * shape[0], shape[1]), lies, pieces)

    return _together(0), _together(1), int(soonest) + 1
