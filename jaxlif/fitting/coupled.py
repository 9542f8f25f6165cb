"""How likely one neuron's spikes are, given those of the others that reach it; and where that is largest.

With its spikes forced the voltage of an integrate-and-fire neuron is linear in the weights of what reaches it, and the
log-likelihood of its spikes concave in them.
"""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxlif import losses
from jaxlif.compiled import compiled
from jaxlif.synapses import Drive, Synaptic, SynapticParams, VoltageJump

_DONE = 1e-6  # nats that a Newton step would gain, below which there is no next one: a thousandth of an error
_STEPS = 100


class Targets(NamedTuple):
    """Of each neuron: what was added to its weights and free parameters [L], their information [L, L] and unit, mV
    [L]; nats of the time that is fitted and held out; whether it is the maximum.
    """

    added: Any
    information: Any
    unit: Any
    fitted: Any
    held_out: Any
    sure: Any


class ForcedNeuron(NamedTuple):
    """What one neuron has: its parameters, current, spikes [T]; which columns of the design may be used [L]."""

    neuron: Any
    current: Any
    spikes: Any
    use: Any


def design(
    cell: Synaptic, free: tuple[str, ...], synapse: Any, arriving: Array, own: ForcedNeuron
) -> tuple[Array, Array, Array]:
    """Return the log-rate [T] without connections, its slopes [T, L] by weights and free parameters, and where the
    neuron can spike [T].

    Each column is a neuron of its own in one scan, moved in one direction: the voltage is linear, and this exact.
    """
    steps, sources = arriving.shape
    columns = sources + len(free)
    kinds = () if isinstance(cell.synapse, VoltageJump) else (1,)
    shape = (steps, *kinds, columns)
    moved = {name: jnp.zeros(columns, own.current.dtype).at[sources + k].set(1.0) for k, name in enumerate(free)}

    def _log_rate(arrivals: Array, values: dict[str, Array]) -> tuple[Array, Array]:
        p = SynapticParams(neuron=replace(own.neuron, **values), synapse=synapse)
        state = cell.init_state(p, Drive(arrivals[0], own.current[0]))
        p = cell.prepare(p)

        def _step(state: Any, x: tuple[Array, Array, Array]) -> tuple[Any, tuple[Array, Array]]:
            active = state.neuron.refractory == 0
            state, v = cell.integrate(p, state, Drive(x[0], x[1]))
            above = v - p.neuron.v_th - cell.neuron.rise(p.neuron, state.neuron)  # type: ignore[attr-defined]
            v, _ = cell.emit(p, state, v)
            state, _ = cell.settle(p, state, v, jnp.full_like(v, x[2]))
            return state, (jnp.log(p.neuron.lambda_0) + above / p.neuron.delta_v, active)

        return jax.lax.scan(_step, state, (arrivals, own.current, own.spikes))[1]

    nothing, reached = jnp.zeros(shape, own.current.dtype), jnp.zeros(shape, own.current.dtype)
    reached = reached.at[..., :sources].set(arriving.reshape(steps, *kinds, sources))
    at = {name: jnp.full(columns, getattr(own.neuron, name), own.current.dtype) for name in free}
    base, slopes, active = jax.jvp(_log_rate, (nothing, at), (reached, moved), has_aux=True)
    return base[:, 0], slopes * own.use[None], active[:, 0]


def _maximum(value: Any, pieces: Any, change: Any, start: Array) -> tuple[Array, Array]:
    """Return the maximum [L] of a concave function by Newton's method, and whether it was found.

    A step changes the log-rate by no more than 5, by ``change``, and is halved until it gains: what has no maximum does
    not run away.
    """
    noise = 30.0 * float(jnp.finfo(start.dtype).eps)

    def _step(carry: Any) -> Any:
        at, before, _, count = carry
        slope, information = pieces(at)
        step = _solved(information, slope)
        lost = jnp.any((jnp.diagonal(information) <= 0.0) & (slope != 0.0))  # on a slope without an end
        gain = jnp.where(lost, jnp.inf, slope @ step)
        whole = 5.0 / jnp.maximum(change(step), 5.0)

        def _short(tried: tuple[Array, Array]) -> Any:
            return ~(tried[1] >= before + 1e-4 * tried[0] * gain - noise * jnp.abs(before)) & (tried[0] > 1e-9)

        def _halved(tried: tuple[Array, Array]) -> tuple[Array, Array]:
            return 0.5 * tried[0], value(at + 0.5 * tried[0] * step)

        share, after = jax.lax.while_loop(_short, _halved, (whole, value(at + whole * step)))
        return at + share * step, after, gain, count + 1

    def _found(carry: Any) -> Any:
        return carry[2] <= jnp.maximum(_DONE, noise * jnp.abs(carry[1]))

    begin = (start, value(start), jnp.full((), jnp.inf, start.dtype), jnp.zeros((), jnp.int32))
    end = jax.lax.while_loop(lambda carry: ~_found(carry) & (carry[3] < _STEPS), _step, begin)
    return end[0], _found(end)


def _solved(information: Array, slope: Array) -> Array:
    """Solve for a Newton step; a direction of which nothing is known is not gone."""
    size = jnp.diagonal(information)
    root = jnp.sqrt(jnp.where(size > 0.0, size, 1.0))
    least = 10.0 * float(jnp.finfo(slope.dtype).eps) * len(slope)
    alike = information / jnp.outer(root, root) + least * jnp.eye(len(slope), dtype=slope.dtype)
    alike = jnp.where(jnp.diag(size > 0.0) | ~jnp.eye(len(slope), dtype=bool), alike, 1.0)
    step: Array = jnp.where(size > 0.0, jnp.linalg.solve(alike, slope / root) / root, 0.0)
    return step


@compiled(values=4, keep=8)
def fit_targets(
    cell: Synaptic, free: tuple[str, ...], cut: int, at_once: int, synapse: Any, arriving: Array, every: ForcedNeuron
) -> Targets:
    """Fit all neurons, each by itself."""

    def _one(own: ForcedNeuron) -> Targets:
        base, slopes, active = design(cell, free, synapse, arriving, own)
        able = active.astype(base.dtype)

        def _likelihood(log_rate: Array, part: slice) -> Array:
            return losses.point_process_log_likelihood(log_rate, own.spikes[part], dt=cell.dt, active=able[part])

        early, late = slice(None, cut), slice(cut, None)
        slope_of = jax.grad(partial(_likelihood, part=early))

        def _value(at: Array) -> Array:
            return _likelihood(base[early] + slopes[early] @ at, early)

        def _pieces(at: Array) -> tuple[Array, Array]:
            log_rate = base[early] + slopes[early] @ at
            slope, bend = jax.jvp(slope_of, (log_rate,), (jnp.ones_like(log_rate),))
            return slope @ slopes[early], -(slopes[early].T * bend[None]) @ slopes[early]

        def _change(step: Array) -> Array:
            return jnp.max(jnp.abs(slopes[early] @ step))

        found, sure = _maximum(_value, _pieces, _change, jnp.zeros(slopes.shape[1], base.dtype))
        held = _likelihood((base + slopes @ found)[late], late) if cut < len(base) else jnp.zeros((), base.dtype)
        unit = jnp.max(jnp.abs(slopes), axis=0) * own.neuron.delta_v
        return Targets(found, _pieces(found)[1], unit, _value(found), held, sure)

    found: Targets = jax.lax.map(_one, every, batch_size=at_once)
    return found
