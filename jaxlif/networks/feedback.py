"""Neurons that drive one another through any path, and neurons with synapses as a layer."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxlif.networks.layers import _require_sizes, signal
from jaxlif.neurons.cell import Cell, state_dtype
from jaxlif.neurons.checks import check_cell
from jaxlif.neurons.escape import Noisy
from jaxlif.synapses import Drive, Synaptic, VoltageJump


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class FeedbackParams:
    """Parameters of neurons that feed back.

    Args:
        neuron: the neuron's own parameters.
        path: those of the way from spikes to input.
    """

    neuron: Any
    path: Any


class FeedbackState(NamedTuple):
    """The neurons' state, the path's state, and the spikes [N] of the step before."""

    neuron: Any
    path: Any
    spikes: Array


@dataclass(frozen=True)
class Feedback:
    r"""Neurons that drive one another one step later through any path: :math:`I_n = x_n + path(s_{n-1})`.

    With a :class:`Dense` path this is :class:`Recurrent`, whose gradient is faster; with a :class:`Sparse` one a large
    network; with ``Sequential((Delayed(...), Sparse(...)))`` one with delays.

    Args:
        neuron: a spiking cell whose input is an array, such as :class:`jaxlif.LIF` or :class:`Arriving`, or the
            :class:`Noisy` input of :class:`EscapeNoise`.
        path: a cell that takes the spikes [N]; its :func:`signal` is added to the input. An input of fewer numbers,
            such as [1], is broadcast to it.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import Sparse, fixed_in_degree, init_neurons, init_sparse
        >>> target = fixed_in_degree(jax.random.key(0), 50, 50, 5)
        >>> params = FeedbackParams(neuron=init_neurons(50), path=init_sparse(jax.random.key(1), target, 50))
        >>> jl.simulate(Feedback(jl.LIF(dt=1.0), Sparse(50)), params, jnp.full((100, 1), 1.5))[1].spikes.shape
        (100, 50)
    """

    neuron: Cell
    path: Cell

    def check(self, params: FeedbackParams) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of the neuron or the path."""
        check_cell(self.neuron, params.neuron)
        check_cell(self.path, params.path)

    def init_state(self, params: FeedbackParams, x: Array) -> FeedbackState:
        """Return fresh neurons, none of which has spiked; their number is that of the input or of their parameters."""
        x = jax.tree.map(lambda x: jnp.asarray(x, state_dtype(params, x)), x)
        neuron = self.neuron.init_state(params.neuron, x)
        # One step shows the shape of the spikes; the compiler drops its arithmetic.
        spikes = jnp.zeros_like(self.neuron.step(params.neuron, neuron, x)[1].spikes)
        return FeedbackState(neuron, self.path.init_state(params.path, spikes), spikes)

    def step(self, params: FeedbackParams, state: FeedbackState, x: Array) -> tuple[FeedbackState, Any]:
        """Advance one step under the input ``x``; the output is the neuron's."""
        path, arriving = self.path.step(params.path, state.path, state.spikes)
        neuron, output = self.neuron.step(params.neuron, state.neuron, _added(x, signal(arriving)))
        return FeedbackState(neuron, path, output.spikes), output


@dataclass(frozen=True)
class Arriving:
    """A neuron with synapses as a layer: what the layer before passes on are the weights that arrive at its synapses.

    Args:
        neuron: a :class:`jaxlif.Synaptic` neuron; put a constant current into its ``v_rest``.
        kinds: K, kinds of synapse: the input [K N] is that of the first kind for all neurons, then that of the next.
            Without effect on :class:`jaxlif.VoltageJump`, which takes [N].

    Raises:
        ValueError: for no kind; while simulating, for an input that the kinds do not divide.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import Dense, Sequential, init_dense
        >>> neuron = jl.Synaptic(jl.LIF(dt=1.0), jl.ExponentialCurrent())
        >>> params = jl.SynapticParams(neuron=jl.LIFParams().normalised(), synapse=jl.CurrentParams(tau_syn=5.0))
        >>> network = Sequential((Dense(), Arriving(neuron)))
        >>> _, output = jl.simulate(network, (init_dense(jax.random.key(0), 4, 3), params), jnp.ones((20, 4)))
        >>> output.output.spikes.shape
        (20, 3)
    """

    neuron: Synaptic
    kinds: int = 1

    def __post_init__(self) -> None:
        _require_sizes(kinds=self.kinds)

    def check(self, params: Any) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of the neuron."""
        check_cell(self.neuron, params)

    def init_state(self, params: Any, x: Array) -> Any:
        """Return the neuron's fresh state and closed synapses."""
        return self.neuron.init_state(params, self._drive(x))

    def step(self, params: Any, state: Any, x: Array) -> tuple[Any, Any]:
        """Advance one step in which ``x`` [K N] arrives; the output is the neuron's."""
        return self.neuron.step(params, state, self._drive(x))

    def _drive(self, x: Array) -> Drive:
        x = jnp.asarray(x, state_dtype(x))
        if isinstance(self.neuron.synapse, VoltageJump):
            return Drive(x, jnp.zeros_like(x))
        if x.ndim != 1 or x.shape[0] % self.kinds:
            raise ValueError(f"input {list(x.shape)}: for {self.kinds} kinds of synapse it must be [{self.kinds} N]")
        arrivals = x.reshape((self.kinds, -1))
        return Drive(arrivals, jnp.zeros_like(arrivals[0]))


def _added(x: Any, arriving: Array) -> Any:
    if isinstance(x, Noisy):
        return x._replace(input=_added(x.input, arriving))
    return jnp.asarray(x, arriving.dtype) + arriving
