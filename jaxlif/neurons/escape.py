"""Escape noise: a neuron that spikes at random near its threshold, its random numbers an input."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.checks import concrete, require
from jaxlif.neurons.cell import (
    SPIKING,
    SpikingNeuron,
    check_cell,
    check_inputs,
    innermost,
    prepared,
    require_verbs,
    state_dtype,
    widened,
)


class Noisy(NamedTuple):
    """The input of a noisy neuron: its own input, and numbers [N] drawn from Exp(1)."""

    input: Any
    noise: Array


@runtime_checkable
class _Noise(Protocol):
    """Parameters with the width and the rate of an escape noise."""

    delta_v: Any
    lambda_0: Any


@dataclass(frozen=True)
class EscapeNoise:
    r"""Let a neuron spike at random with the rate :math:`\lambda = \lambda_0 e^{(v - \theta)/\Delta_v}`.

    In a step it spikes where :math:`\lambda\, dt \ge E` with E from Exp(1), so that the probability is
    :math:`1 - e^{-\lambda dt}`. Params are the neuron's own, with ``delta_v`` and ``lambda_0``. The step is pure: the
    random numbers arrive with the input; see :func:`escape_inputs`.

    Args:
        neuron: a cell with integrate, emit and settle, such as :class:`AdaptiveLIF`, also with synapses; others are
            refused.

    Raises:
        ValueError: for a neuron without these; while simulating, for parameters without ``delta_v`` and ``lambda_0``.

    Example:
        >>> import jaxlif as jl
        >>> params = jl.AdaptiveLIFParams(delta_v=2.0)
        >>> inputs = escape_inputs(jax.random.key(0), jnp.full((5000, 3), 200.0))
        >>> _, output = jl.simulate(EscapeNoise(jl.AdaptiveLIF(dt=0.1)), params, inputs)
        >>> len(set(output.spikes.sum(axis=0).tolist())) > 1  # the same current, other spikes
        True

    Source: Gerstner & van Hemmen 1992, doi:10.1088/0954-898X_3_2_004; Gerstner et al. 2014,
    doi:10.1017/CBO9781107447615, chapter 9.
    """

    neuron: SpikingNeuron
    takes: ClassVar[type] = Noisy

    def __post_init__(self) -> None:
        require_verbs(self, self.neuron, SPIKING)

    def check(self, params: Any) -> None:
        """Refuse parameters without noise, and what breaks a rule of the neuron."""
        noise = innermost(params)
        if not isinstance(noise, _Noise):
            found = type(noise).__name__
            raise ValueError(f"params = {found}: EscapeNoise needs delta_v and lambda_0, as AdaptiveLIFParams has them")
        check_cell(self.neuron, params)

    def check_inputs(self, inputs: Noisy) -> None:
        """Refuse negative numbers of Exp(1), and what breaks a rule of the neuron, where they are at hand."""
        if concrete(inputs.noise):
            rule = "noise must be 0 or more, drawn from Exp(1)"
            require(np.asarray(inputs.noise) >= 0.0, "noise", inputs.noise, "", rule)
        check_inputs(self.neuron, inputs.input)

    def prepare(self, params: Any) -> Any:
        """Let the neuron compute once what depends on its parameters alone."""
        return prepared(self.neuron, params)

    @property
    def dt(self) -> float:
        """Step, ms."""
        return self.neuron.dt  # type: ignore[attr-defined]

    def init_state(self, params: Any, x: Noisy) -> Any:
        """Return the neuron's own fresh state."""
        return self.neuron.init_state(params, widened(x.input, jnp.shape(x.noise)))

    def step(self, params: Any, state: Any, x: Noisy) -> tuple[Any, Any]:
        """Advance one step; the output is the neuron's own, with the spikes of the noise."""
        state, v = self.neuron.integrate(params, state, x.input)
        # lambda dt >= E is v >= theta + delta_v log(E / (lambda_0 dt)): the neuron tests a voltage moved by that much.
        noise = innermost(params)
        shift = noise.delta_v * jnp.log(jnp.asarray(x.noise, v.dtype) / (noise.lambda_0 * self.dt))
        _, spikes = self.neuron.emit(params, state, v - shift)
        v, _ = self.neuron.emit(params, state, v)
        state, v = self.neuron.settle(params, state, v, spikes)
        return state, EscapeOutput(spikes, v)


class EscapeOutput(NamedTuple):
    """Spikes [N], 0 or 1, and the voltage [N] after the reset, mV."""

    spikes: Array
    v: Array


def escape_inputs(key: Array, current: Array) -> Noisy:
    """Pair a current with the random numbers of :class:`EscapeNoise`.

    Args:
        key: random key; it is consumed.
        current: [T, N], pA; every column gets its own noise.

    Returns:
        The input of a simulation.

    Example:
        >>> escape_inputs(jax.random.key(0), jnp.zeros((4, 2))).noise.shape
        (4, 2)
    """
    current = jnp.asarray(current, state_dtype(current))
    return Noisy(current, jax.random.exponential(key, current.shape, current.dtype))
