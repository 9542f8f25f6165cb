"""Teacher forcing: a neuron that is reset at the recorded spikes instead of its own."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.checks import concrete, require
from jaxlif.neurons.cell import SPIKING, SpikingNeuron, check_cell, check_inputs, prepared, require_verbs, widened


class Forced(NamedTuple):
    """The input of a teacher-forced neuron: its own input, and the recorded spikes [N], 0 or 1."""

    input: Any
    spikes: Array


class ForcedOutput(NamedTuple):
    """What a teacher-forced neuron shows at the step's end.

    ``spikes`` [N] are those that it would have emitted itself; ``v`` [N], mV, is recorded after the forced reset;
    ``v_before`` [N], mV, is what the threshold was tested on.
    """

    spikes: Array
    v: Array
    v_before: Array


@dataclass(frozen=True)
class TeacherForced:
    """Reset a spiking neuron at recorded spikes, so that its voltage stays beside the recording.

    Between recorded spikes the voltage of an integrate-and-fire neuron is linear in its drive: a loss on it is smooth
    in every parameter, and a fit recovers them all where a free-running one ends at wrong values.

    Args:
        neuron: any cell with integrate, emit and settle, synapses included; others are refused.

    Raises:
        ValueError: for a neuron without these.

    Example:
        >>> from jaxlif.neurons.lif import LIF, LIFParams
        >>> cell, params = TeacherForced(LIF()), LIFParams()
        >>> x = Forced(jnp.asarray(0.0), jnp.asarray(1.0))
        >>> float(cell.step(params, cell.init_state(params, x), x)[1].v)
        -65.0

    Source: Pozzorini et al. 2015, doi:10.1371/journal.pcbi.1004275 (spikes forced at the recorded times).
    """

    neuron: SpikingNeuron
    takes: ClassVar[type] = Forced

    def __post_init__(self) -> None:
        require_verbs(self, self.neuron, SPIKING)

    @property
    def dt(self) -> float:
        """Step, ms."""
        return self.neuron.dt  # type: ignore[attr-defined]

    def check(self, params: Any) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of the neuron."""
        check_cell(self.neuron, params)

    def check_inputs(self, inputs: Forced) -> None:
        """Refuse spikes other than 0 and 1, and what breaks a rule of the neuron, where they are at hand."""
        if concrete(inputs.spikes):
            spikes = np.asarray(inputs.spikes)
            require(
                (spikes == 0) | (spikes == 1), "spikes", spikes, "", "spikes must be 0 or 1, a spike in a step or none"
            )
        check_inputs(self.neuron, inputs.input)

    def prepare(self, params: Any) -> Any:
        """Let the neuron compute once what depends on its parameters alone."""
        return prepared(self.neuron, params)

    def init_state(self, params: Any, x: Forced) -> Any:
        """Return the neuron's own fresh state."""
        return self.neuron.init_state(params, widened(x.input, jnp.shape(x.spikes)))

    def step(self, params: Any, state: Any, x: Forced) -> tuple[Any, ForcedOutput]:
        """Advance one step, resetting where ``x.spikes`` says so."""
        state, before = self.neuron.integrate(params, state, x.input)
        before, spikes = self.neuron.emit(params, state, before)
        state, v = self.neuron.settle(params, state, before, jnp.asarray(x.spikes, before.dtype))
        return state, ForcedOutput(spikes, v, before)
