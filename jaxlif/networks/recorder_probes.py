"""Neurons that also say what a gradient meets in them: what the flight recorder measures inside a layer."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Probes(NamedTuple):
    """Derivatives within a step of a neuron, [N]; nan where they cannot be measured.

    openness: of the spikes in the voltage, over its value at threshold; slope: the same, per mV; keep: of the next
    voltage in this one, reset included; drive: of the voltage in the input.
    """

    openness: Array
    slope: Array
    keep: Array
    drive: Array


class Probed(NamedTuple):
    """A neuron's output, and its probes."""

    output: Any
    probes: Probes

    @property
    def spikes(self) -> Array:
        """The neuron's spikes, [N]."""
        return self.output.spikes


@dataclass(frozen=True)
class _Probe:
    """A neuron that also says how open its surrogate is, and how a change of its voltage goes on."""

    neuron: Any

    def init_state(self, params, x):
        return self.neuron.init_state(params, x)

    def step(self, params, state, x):
        advanced, v = self.neuron.integrate(params, state, x)
        # Measured, not computed: the slope of the spikes knows about held neurons and moving thresholds.
        slope = _slope(lambda v: self.neuron.emit(params, advanced, v)[1], v)
        physics = _innermost(params, "v_th")
        at_threshold = _innermost(self.neuron, "surrogate").surrogate(jnp.zeros_like(v))
        openness = slope * jnp.abs(physics.v_th - physics.v_rest) / at_threshold
        unknown = jnp.full_like(v, jnp.nan)
        keep = drive = unknown
        if hasattr(state, "v") and hasattr(state, "_replace"):
            keep = _slope(lambda v: self.neuron.step(params, state._replace(v=v), x)[0].v, state.v)
        if getattr(x, "shape", None) == v.shape and x.dtype == v.dtype:
            drive = _slope(lambda x: self.neuron.integrate(params, state, x)[1], x)
        state, output = self.neuron.step(params, state, x)
        return state, Probed(output, Probes(openness, slope, keep, drive))


def _slope(function, x):
    """Return the derivative of an elementwise function."""
    return jax.jvp(function, (x,), (jnp.ones_like(x),))[1]


@dataclass(frozen=True)
class Tapped:
    """A spiking layer to whose spikes a number is added, before anybody sees them."""

    layer: Any

    def init_state(self, params, x):
        """Return the layer's fresh state; ``x`` is its input and the number to add."""
        return self.layer.init_state(params, x[0])

    def step(self, params, state, x):
        """Advance the layer; return its output, with the number added to its spikes, and the probes."""
        state, output = self.layer.step(params, state, x[0])
        if not isinstance(output, Probed):
            output = Probed(output, Probes(*(jnp.full_like(output.spikes, jnp.nan),) * len(Probes._fields)))
        spikes = output.spikes + x[1]
        # A recurrent layer remembers its spikes, to send them to itself in the next step.
        state = state._replace(spikes=spikes) if hasattr(state, "spikes") else state
        return state, (output.output._replace(spikes=spikes), output.probes)


def probed(layer):
    """Return a layer whose neuron is probed where it has a surrogate that can be; else the layer itself."""
    if hasattr(layer, "emit"):
        return _Probe(layer) if _innermost(layer, "surrogate") is not None else layer
    if hasattr(layer, "neuron") and hasattr(layer.neuron, "emit"):
        return replace(layer, neuron=probed(layer.neuron))
    return layer


def _innermost(thing, field):
    """Return the thing, or the first neuron that it wraps, that has a field; None without one."""
    while not hasattr(thing, field):
        if not hasattr(thing, "neuron"):
            return None
        thing = thing.neuron
    return thing
