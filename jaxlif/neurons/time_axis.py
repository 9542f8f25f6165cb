"""The whole time axis of a neuron that charges and resets, each by itself, with a gradient of its own.

Its state is the voltage ``v`` and the steps that it is still ``refractory``. Kept is the voltage before each reset, in
the place of the inputs, from which the way back is linear.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.neurons.cell import SpikingNeuron, SpikingOutput
from jaxlif.neurons.in_place import overwrite, placed, recurrence


def stepped(neuron: SpikingNeuron, params: Any, state: Any, inputs: Array, unroll: int = 1) -> tuple[Any, Any]:
    """Step through ``inputs`` in a scan, whose steps the backward pass computes again."""
    return jax.lax.scan(jax.checkpoint(partial(neuron.step, params), prevent_cse=False), state, inputs, unroll=unroll)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def charge_and_reset(neuron: SpikingNeuron, params: Any, state: Any, inputs: Array) -> tuple[Any, Any]:
    """Advance through ``inputs`` [T, N]; where nothing but them, tau_m and r_m moves the gradient has its own loops."""

    def _output(v: Array, held: Array) -> SpikingOutput:
        _, v, spikes = _reset(neuron, params, _held(state, v, held))
        return SpikingOutput(spikes, v)

    v, held, refractory = _charged(neuron, params, state, inputs)
    outputs = jax.vmap(_output)(v, held)
    return _placed((state._replace(v=outputs.v[-1], refractory=refractory), outputs))


@partial(charge_and_reset.defjvp, symbolic_zeros=True)
def _charge_and_reset_jvp(neuron: SpikingNeuron, primals: Any, tangents: Any) -> Any:
    run = charge_and_reset.fun if _only_charging(*tangents) else stepped
    values, moves = _along(partial(run, neuron), primals, tangents)
    return _placed(values), _placed(moves)


def _placed(result: tuple[Any, Any]) -> tuple[Any, Any]:
    return placed(result[0]), placed(result[1], timed=True)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _charged(neuron: SpikingNeuron, params: Any, state: Any, inputs: Array) -> tuple[Array, Array, Array]:
    """Return the voltages [T, N] before each reset, which neurons are held, and the steps left at the end."""
    return _charges(overwrite, neuron, params, state, inputs)


@partial(_charged.defjvp, symbolic_zeros=True)
def _charged_jvp(neuron: SpikingNeuron, primals: Any, tangents: Any) -> Any:
    def _loop(step: Any, params: Any, carry: Any, series: Any) -> Any:
        return jax.lax.scan(partial(step, params), carry, series)

    if not _only_charging(*tangents):
        return _along(partial(_charges, _loop, neuron), primals, tangents)
    (params, state, inputs), (moves, _, inputs_dot) = primals, tangents
    v, held, left = _charged(neuron, *primals)
    moving = {name: t for name in _CHARGING if not _still(t := getattr(moves, name))}

    def _step(params: Any, before: Any, now: Any, v_dot: Array, moving: Any) -> Array:
        def _next(v: Array, some: Any) -> Array:
            own = replace(params, **some)
            after = _reset(neuron, own, _held(state, v, before[1]))[1]
            return _charge(neuron, own, _held(state, after, now[1]), now[2])

        some = {name: getattr(params, name) for name in moving}
        after_dot: Array = jax.jvp(_next, (before[0], some), (v_dot, moving))[1]
        return after_dot

    def _driven(held: Array, x: Array, x_dot: Array) -> Array:
        still = _held(state, jnp.zeros_like(x), held)  # the rise that an input causes is the same at every voltage
        v_dot: Array = jax.jvp(lambda x: _charge(neuron, params, still, x), (x,), (x_dot,))[1]
        return v_dot

    drive = jnp.zeros_like(v) if _still(inputs_dot) else jax.vmap(_driven)(held, inputs, inputs_dot)
    first = state.v, jnp.ones_like(held[0]), jnp.zeros_like(state.v)
    v_dot = recurrence(_step, params, first, (v, held, inputs), drive, moving)
    return (v, held, left), (placed(v_dot, timed=True), *(np.zeros(x.shape, jax.dtypes.float0) for x in (held, left)))


def _charges(loop: Any, neuron: SpikingNeuron, params: Any, state: Any, inputs: Array) -> tuple[Array, Array, Array]:
    def _step(params: Any, before: Any, x: tuple[Array, Array]) -> tuple[Any, tuple[Array, Array]]:
        state = _reset(neuron, params, before)[0]
        v = _charge(neuron, params, state, x[0])
        return state._replace(v=v), (v, state.refractory > 0)

    # A neuron that is held for one step more does not spike before the first.
    before, held = state._replace(refractory=state.refractory + 1), jnp.zeros(inputs.shape, bool)
    last, (v, held) = loop(_step, params, before, (inputs, held))
    return *placed((v, held), timed=True), placed(_reset(neuron, params, last)[0].refractory)


def _reset(neuron: SpikingNeuron, params: Any, before: Any) -> tuple[Any, Array, Array]:
    """Return state, voltage and spikes at a step's end from the state before the reset."""
    v, spikes = neuron.emit(params, before, before.v)
    return *neuron.settle(params, before, v, spikes), spikes


def _charge(neuron: SpikingNeuron, params: Any, state: Any, x: Array) -> Array:
    """Return the voltage at a step's end before the reset."""
    return neuron.emit(params, *neuron.integrate(params, state, x))[0]


def _held(state: Any, v: Array, held: Array) -> Any:
    return state._replace(v=v, refractory=held.astype(jnp.int32))


_CHARGING = ("tau_m", "r_m")  # what a voltage depends on before its reset


def _only_charging(params: Any, state: Any, inputs: Any) -> bool:
    """Say whether nothing has a tangent but the inputs and parameters that act between resets."""
    return all(map(_still, jax.tree.leaves((replace(params, **dict.fromkeys(_CHARGING)), state))))


def _still(tangent: Any) -> bool:
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero) or tangent.dtype == jax.dtypes.float0


def _along(run: Any, primals: Any, tangents: Any) -> Any:
    """Differentiate ``run`` in the leaves that have a tangent, and only in these."""
    leaves, form = jax.tree.flatten(primals)
    moving = {i: t for i, t in enumerate(jax.tree.leaves(tangents)) if not _still(t)}

    def _run(moved: dict[int, Array]) -> Any:
        return run(*jax.tree.unflatten(form, [moved.get(i, x) for i, x in enumerate(leaves)]))

    return jax.jvp(_run, ({i: leaves[i] for i in moving},), (moving,))
