"""Neurons around a neuron: one that spikes at random near its threshold, one that is reset at recorded spikes."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Key, Real

from jaxlif import checks
from jaxlif.neurons import cell as protocol
from jaxlif.neurons.cell import SpikingNeuron, SpikingOutput


class Noisy(NamedTuple):
    """The input of a noisy neuron: its own input, and numbers [N] drawn from Exp(1)."""

    input: Any
    noise: Array


class Forced(NamedTuple):
    """The input of a teacher-forced neuron: its own input, and the recorded spikes [N], 0 or 1."""

    input: Any
    spikes: Array


class ForcedOutput(NamedTuple):
    """The spikes [N] that a neuron would have emitted, its voltage [N], mV, after the forced reset, and before."""

    spikes: Array
    v: Array
    v_before: Array


@dataclass(frozen=True)
class Wrapper:
    """What every wrapper lets its neuron do; the second part of its input says for how many neurons."""

    neuron: SpikingNeuron

    def __post_init__(self) -> None:
        protocol.require_verbs(self, self.neuron, protocol.SPIKING)

    @property
    def dt(self) -> float:
        """Step, ms."""
        return self.neuron.dt

    def check(self, params: Any) -> None:
        """Refuse what breaks a rule of the neuron."""
        protocol.check_cell(self.neuron, params)

    def prepare(self, params: Any) -> Any:
        """Let the neuron compute once what depends on its parameters alone."""
        return protocol.prepared(self.neuron, params)

    def init_state(self, params: Any, x: Any) -> Any:
        """Return the neuron's own fresh state."""
        return self.neuron.init_state(params, protocol.widened(x.input, jnp.shape(x[1])))


@dataclass(frozen=True)
class EscapeNoise(Wrapper):
    r"""Let a neuron spike at random with the rate :math:`\lambda = \lambda_0 e^{(v - \theta)/\Delta_v}`.

    In a step it spikes where :math:`\lambda\, dt \ge E` with E from Exp(1), so that the probability is
    :math:`1 - e^{-\lambda dt}`. Params are the neuron's own, with ``delta_v`` and ``lambda_0``. The step is pure: the
    random numbers arrive with the input; see :func:`escape_inputs`.

    Args:
        neuron: a cell with integrate, emit and settle, such as :class:`AdaptiveLIF`, also with synapses.

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

    takes: ClassVar[type] = Noisy

    def check(self, params: Any) -> None:
        """Refuse parameters without noise, and what breaks a rule of the neuron."""
        checks.require_fields("EscapeNoise", protocol.innermost(params), ("delta_v", "lambda_0"), ())
        super().check(params)

    def check_inputs(self, inputs: Noisy) -> None:
        """Refuse negative numbers of Exp(1), and what breaks a rule of the neuron, where they are at hand."""
        if checks.concrete(inputs.noise):
            rule = "noise must be 0 or more, drawn from Exp(1)"
            checks.require(np.asarray(inputs.noise) >= 0.0, "noise", inputs.noise, "", rule)
        protocol.check_inputs(self.neuron, inputs.input)

    def step(self, params: Any, state: Any, x: Noisy) -> tuple[Any, SpikingOutput]:
        """Advance one step; the spikes are those of the noise."""
        state, v = self.neuron.integrate(params, state, x.input)
        # lambda dt >= E is v >= theta + delta_v log(E / (lambda_0 dt)): the neuron tests a voltage moved by that much.
        noise = protocol.innermost(params)
        shift = noise.delta_v * jnp.log(jnp.asarray(x.noise, v.dtype) / (noise.lambda_0 * self.dt))
        _, spikes = self.neuron.emit(params, state, v - shift)
        v, _ = self.neuron.emit(params, state, v)
        state, v = self.neuron.settle(params, state, v, spikes)
        return state, SpikingOutput(spikes, v)


def escape_inputs(key: Key[Array, ""], current: Real[Array, "T *N"]) -> Noisy:
    """Pair a current, pA, with the random numbers of :class:`EscapeNoise`, its own for every neuron; consumes the key.

    Example:
        >>> escape_inputs(jax.random.key(0), jnp.zeros((4, 2))).noise.shape
        (4, 2)
    """
    current = jnp.asarray(current, protocol.state_dtype(current))
    return Noisy(current, waiting_times(key, current.shape, current.dtype))


def waiting_times(key: Key[Array, ""], shape: tuple[int, ...], dtype: Any = float) -> Array:
    """Draw from Exp(1), never 0, at which a neuron would spike however far it is from its threshold."""
    drawn = jax.random.exponential(key, shape, dtype)
    return drawn + jnp.asarray(jnp.finfo(drawn.dtype).eps / 2.0, drawn.dtype)  # half of the least that is not 0


@dataclass(frozen=True)
class TeacherForced(Wrapper):
    """Reset a spiking neuron at recorded spikes, so that its voltage stays beside the recording.

    Between recorded spikes the voltage of an integrate-and-fire neuron is linear in its drive: a loss on it is smooth
    in every parameter, and a fit recovers them all where a free-running one ends at wrong values.

    Args:
        neuron: any cell with integrate, emit and settle, synapses included.

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

    takes: ClassVar[type] = Forced

    def check_inputs(self, inputs: Forced) -> None:
        """Refuse spikes other than 0 and 1, and what breaks a rule of the neuron, where they are at hand."""
        if checks.concrete(inputs.spikes):
            ok = np.isin(inputs.spikes, (0, 1))
            checks.require(ok, "spikes", inputs.spikes, "", "spikes must be 0 or 1, a spike in a step or none")
        protocol.check_inputs(self.neuron, inputs.input)

    def step(self, params: Any, state: Any, x: Forced) -> tuple[Any, ForcedOutput]:
        """Advance one step, resetting where ``x.spikes`` says so."""
        state, before = self.neuron.integrate(params, state, x.input)
        before, spikes = self.neuron.emit(params, state, before)
        state, v = self.neuron.settle(params, state, before, jnp.asarray(x.spikes, before.dtype))
        return state, ForcedOutput(spikes, v, before)
