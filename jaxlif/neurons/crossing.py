"""The first crossing of the threshold by a membrane under synaptic currents, between arrivals that are known."""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from jaxlif.neurons.cell import KEPT, relax
from jaxlif.neurons.lif import LIFParams
from jaxlif.neurons.precise import time_to_threshold


class Course(Protocol):
    """How synapses go on when nothing arrives; ``own`` are their parameters."""

    def after(self, neuron: LIFParams, own: Any, synapse: Any, time: Array, weights: Any = 0.0) -> tuple[Any, Array]:
        """Return the synapses after a time [N], ms, at which ``weights`` arrive, and by how much, mV, they have moved a
        membrane that was at rest.
        """

    def peak(self, own: Any, synapse: Any, time: Array) -> Array:
        """Return a bound, pA, of the total current within a time, that for a time of 0 is the current itself."""


class Stretch(NamedTuple):
    """A time without arrivals: its start and end, ms from the step's start; there the synapses, and the rise of the
    voltage, mV, that they have caused since the step's start; the rise at its end. A step's stand in rows [M + 1, ...].
    """

    start: Array
    end: Array
    synapse: Any
    rise: Array
    last: Array


class Membrane(NamedTuple):
    """A membrane, free ``since`` a time [N], ms from the step's start; ``v`` is its voltage then, less the rise.

    ``own`` are the parameters of its synapses.
    """

    course: Course
    params: LIFParams
    own: Any
    v_inf: Array
    since: Array
    v: Array

    def after(self, stretch: Stretch, time: Array, weights: Any = 0.0) -> tuple[Any, Array]:
        """Return the synapses and the rise at a time inside a stretch, or at its end, where something arrives."""
        late = time - stretch.start
        synapse, moved = self.course.after(self.params, self.own, stretch.synapse, late, weights)
        return synapse, stretch.rise * jnp.exp(-late / self.params.tau_m) + moved

    def voltage(self, rise: Array, time: Array) -> Array:
        """Return the voltage at a time at which the rise is known."""
        return relax(self.v, self.v_inf, self.params.tau_m, time - self.since) + rise

    def released(self, v: Array, stretches: Stretch) -> "Membrane":
        """Return the membrane with the voltage ``v`` when it becomes free; what arrives just then comes after."""
        first = jnp.sum(stretches.start[1:] < self.since[None], axis=0)
        return self._replace(v=v - self.after(at_index(stretches, first), self.since)[1])

    def highest(self, stretches: Stretch, v: Array) -> Array:
        """Return the highest voltage at the ends of the stretches, ``v`` where it was not free."""
        tops = jax.vmap(self.voltage)(stretches.last, jnp.broadcast_to(stretches.end, stretches.last.shape))
        return jnp.max(jnp.where(stretches.end > self.since[None], tops, v[None]), axis=0)

    def wait(self, v: Array, current: Array) -> Array:
        """Return how long, ms, a synaptic current that stays needs from v to threshold, or infinity."""
        overdrive = self.v_inf + self.params.r_m * current - self.params.v_th
        drives, rise = overdrive > 0.0, jnp.maximum(self.params.v_th - v, 0.0)
        return jnp.where(drives, time_to_threshold(self.params, rise, jnp.where(drives, overdrive, 1.0)), jnp.inf)


def first_crossing(membrane: Membrane, stretches: Stretch, v: Array, dt: float) -> tuple[Array, Array]:
    """Return who [N] crosses the threshold in a step, and when, ms from its start, as an implicit function.

    ``v`` is the voltage when the membrane becomes free. The search has no derivative: that of the time follows from
    v(time) = v_th alone.
    """
    found = _search(*jax.lax.stop_gradient((membrane, stretches, v)), dt)
    spiked, at_once, index, near = checkpoint_name(found, KEPT)
    stretch, crosses = at_index(stretches, index), spiked & ~at_once

    def _distance(time: Array) -> Array:
        away = membrane.voltage(membrane.after(stretch, time)[1], time) - membrane.params.v_th
        return jnp.where(crosses, away, time - near)

    root = jax.lax.custom_root(_distance, near, lambda f, x: x, lambda slope, y: y / slope(jnp.ones_like(y)))
    start = jnp.where(stretch.start < membrane.since, membrane.since, stretch.start)
    return spiked, jnp.where(at_once, start, root)


class _Rows(NamedTuple):
    """Of each stretch [M + 1, N] when it begins and ends for a neuron, whether the threshold may be crossed in it, and
    whether it is at the end; with membranes and stretches themselves. All have the axes of neurons, as the last ones.
    """

    begin: Array
    end: Array
    may: Array
    reaches: Array
    membrane: Membrane
    stretches: Stretch


def _search(membrane: Membrane, stretches: Stretch, v: Array, dt: float) -> tuple[Array, Array, Array, Array]:
    """Find the first crossing: whose there is, whose as a stretch begins, in which, and when.

    A stretch is looked at where the highest current still to come could reach threshold in it.
    """
    start, end = (jnp.broadcast_to(x, stretches.rise.shape) for x in (stretches.start, stretches.end))
    begin = jnp.maximum(start, membrane.since[None])
    at_begin = jnp.where(start < membrane.since[None], v[None], jax.vmap(membrane.voltage)(stretches.rise, start))
    reaches, may = _candidates(membrane, stretches, at_begin, begin, end)
    own = membrane._replace(
        params=jax.tree.map(lambda x: jnp.broadcast_to(x, v.shape), membrane.params),
        own=jax.tree.map(lambda x: _over_neurons(x, v), membrane.own),
    )
    rows = _Rows(begin, end, may & (membrane.since < dt)[None], reaches, own, stretches._replace(start=start, end=end))
    spiked, index, time = _found(dt)(rows)
    return spiked, spiked & (at_index(at_begin, index) >= membrane.params.v_th), index, time


def _over_neurons(x: Any, v: Array) -> Array:
    """Return a parameter of kinds of synapse, scalar, [K] or [K, N], for all neurons: [K or 1, N]."""
    x = jnp.atleast_1d(jnp.asarray(x, v.dtype))
    return jnp.broadcast_to(x.reshape(len(x), *(1,) * (1 + v.ndim - x.ndim), *x.shape[1:]), (len(x), *v.shape))


def _found(dt: float) -> Any:
    """Return the search through all rows. Of a batch all neurons are searched together, so that few compute for all."""

    @jax.custom_batching.custom_vmap
    def _of(rows: _Rows) -> tuple[Array, Array, Array]:
        shape = rows.begin.shape[1:]
        flat = jax.tree.map(lambda x: x.reshape(*x.shape[: x.ndim - len(shape)], -1), rows)
        return tuple(x.reshape(shape) for x in _in_chunks(flat, dt))  # type: ignore[return-value]

    @_of.def_vmap
    def _together(size: int, batched: list[_Rows], rows: _Rows) -> tuple[Any, Any]:
        rank = rows.begin.ndim - 1 - int(batched[0].begin)

        def _before_neurons(x: Array, batched: bool) -> Array:
            x = x if batched else jnp.broadcast_to(x, (size, *x.shape))
            return jnp.moveaxis(x, 0, x.ndim - 1 - rank)

        return _of(jax.tree.map(_before_neurons, rows, batched[0])), (True, True, True)

    return _of


def _in_chunks(rows: _Rows, dt: float) -> tuple[Array, Array, Array]:
    """Search for those neurons [N] that may cross, a number at a time."""
    n = rows.may.shape[1]
    many = max(n // 16, min(n, 32))

    def _some(now: tuple[Array, ...]) -> tuple[Array, ...]:
        going, *found = now
        chosen = jnp.nonzero(going, size=many, fill_value=n)[0]
        new = _first(jax.tree.map(lambda x: x.at[..., chosen].get(mode="clip"), rows), dt)
        going = going.at[chosen].set(False, mode="drop")
        return going, *(x.at[chosen].set(y, mode="drop") for x, y in zip(found, new, strict=True))

    going = jnp.any(rows.may, axis=0)
    now: tuple[Array, ...] = going, jnp.zeros_like(going), jnp.zeros(n, jnp.int32), jnp.zeros_like(rows.begin[0])
    return jax.lax.while_loop(lambda now: jnp.any(now[0]), _some, now)[1:]  # type: ignore[return-value]


def _first(rows: _Rows, dt: float) -> tuple[Array, Array, Array]:
    """Return who crosses, in which stretch, and when.

    From below: nobody crosses for as long as the highest current still to come needs to threshold. That is Newton's
    step where the current is highest now.
    """
    number = jnp.arange(len(rows.may), dtype=jnp.int32)[:, None]

    def _look(now: tuple[Array, ...]) -> tuple[Array, ...]:
        """Look at the stretch that each has come to, and turn to the next."""
        going, found, index, time = now
        stretch, until, crossed, first = at_index((rows.stretches, rows.end, rows.reaches, rows.begin), index)
        time = jnp.where(going, _approach(rows.membrane, stretch, going, first, until, dt), time)
        passed = (time >= until) & ~crossed
        others = rows.may & (number > index[None])
        turns = going & passed & jnp.any(others, axis=0)
        following = jnp.argmax(others, axis=0).astype(jnp.int32)
        return turns, found | (going & ~passed), jnp.where(turns, following, index), time

    index, going = jnp.argmax(rows.may, axis=0).astype(jnp.int32), jnp.any(rows.may, axis=0)
    now: tuple[Array, ...] = going, jnp.zeros_like(going), index, at_index(rows.begin, index)
    return jax.lax.while_loop(lambda now: jnp.any(now[0]), _look, now)[1:]  # type: ignore[return-value]


def _approach(membrane: Membrane, stretch: Stretch, going: Array, time: Array, until: Array, dt: float) -> Array:
    """Return the first time after ``time`` at which those who are going cross, ``until`` for who does not before."""
    little = dt * jnp.finfo(time.dtype).eps

    def _closer(now: tuple[Array, Array]) -> tuple[Array, Array]:
        going, time = now
        low, later = _later(membrane, stretch, time, until)
        # All comparisons fail for nan, which ends as a crossing.
        going = going & low & (later > time)
        return going & (later > time + little) & (later < until), jnp.where(going, later, time)

    return jax.lax.while_loop(lambda now: jnp.any(now[0]), _closer, (going, time))[1]


def _candidates(membrane: Membrane, stretches: Stretch, v: Array, begin: Array, end: Array) -> tuple[Array, Array]:
    """Return which stretches [M + 1, ...] end above threshold, and which may cross it; ``v`` is that as they begin."""
    params = membrane.params

    def _one(stretch: Stretch, v: Array, begin: Array, end: Array) -> tuple[Array, Array]:
        peak = membrane.course.peak(membrane.own, stretch.synapse, end - stretch.start)
        top = relax(v, membrane.v_inf + params.r_m * peak, params.tau_m, end - begin)
        reaches = membrane.voltage(stretch.last, end) >= params.v_th
        return reaches, reaches | (jnp.maximum(v, top) >= params.v_th)

    reaches, may = jax.vmap(_one)(stretches, v, begin, end)
    # Of arrivals at one time the last counts, and so does one at the step's end.
    last = jnp.arange(len(end)).reshape((-1,) + (1,) * (end.ndim - 1)) == len(end) - 1
    return reaches, may & ((end > begin) | (last & (end == begin)))


def _later(membrane: Membrane, stretch: Stretch, time: Array, until: Array) -> tuple[Array, Array]:
    """Return who is below threshold at a time in a stretch, and a time until which he stays below, at most its end."""
    synapse, rise = membrane.after(stretch, time)
    v, left = membrane.voltage(rise, time), until - time

    def _wait(within: Array) -> Array:
        return jnp.minimum(membrane.wait(v, membrane.course.peak(membrane.own, synapse, within)), left)

    # The present current says how far to look for a higher one.
    soon = _wait(jnp.zeros_like(left))
    return v < membrane.params.v_th, time + jnp.minimum(_wait(soon), soon)


def at_index(rows: Any, index: Array) -> Any:
    """Return of rows [M + 1, ...], of each neuron the one at its index: summed, which compiles faster than a lookup."""

    def _one(x: Array) -> Array:
        number = jnp.arange(len(x), dtype=index.dtype).reshape((-1,) + (1,) * (x.ndim - 1))
        here = number == index.reshape((1,) * (x.ndim - index.ndim) + index.shape)
        return jnp.sum(jnp.where(here, x, jnp.zeros_like(x)), axis=0, dtype=x.dtype)

    return jax.tree.map(_one, rows)
