"""The leaky integrate-and-fire neuron with spikes at their true times, off the grid, and exact gradients."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jaxlif import checks
from jaxlif.neurons.cell import initial_voltage, relax
from jaxlif.neurons.lif import LIFParams, threshold_distance
from jaxlif.surrogate import Surrogate, spike


class PreciseState(NamedTuple):
    """Voltage [N], mV, and the time [N], ms, that the neuron is still refractory."""

    v: Array
    refractory: Array


class PreciseOutput(NamedTuple):
    """Spikes [N], 0 or 1; v [N], mV, after the reset; the spike's time [N], ms from the step's start, 0 without one."""

    spikes: Array
    v: Array
    spike_time: Array


@dataclass(frozen=True)
class PreciseLIF:
    r"""The leaky integrate-and-fire neuron, exact in continuous time for a current held over each step.

    The voltage moves monotonically towards :math:`v_\infty = v_{rest} + r_m I` within a step, so that it crosses the
    threshold at the known time :math:`t^* = \tau_m \ln\frac{v_\infty - v}{v_\infty - v_{th}}`. Reset and refractoriness
    start there and not at the step's end. Nothing depends on dt but how finely the current is described, and plain
    autodiff gives the exact derivative of voltages and spike times with respect to every parameter, t_ref included, and
    to the current; only the creation and deletion of spikes has none.

    Args:
        dt: step, ms. At most one spike fits into it: t_ref >= dt is required.
        surrogate: None, or a pseudo-derivative of ``spikes`` in the distance of the step's highest voltage to
            threshold, for a loss on counts or a network. The gradients of voltages and times stay exact.

    Example:
        >>> import jaxlif as jl
        >>> cell, params = PreciseLIF(dt=1.0), LIFParams(v_reset=-70.0, t_ref=2.0)
        >>> _, output = jl.simulate(cell, params, jnp.full(100, 160.0))
        >>> [round(float(nth_spike_time(output, n, 1.0)), 6) for n in (0, 1)]  # the first at 10 ln(16 / 1) ms
        [27.725887, 57.451774]

    Source: Hanuschkin et al. 2010, doi:10.3389/fninf.2010.00113 (precise spike times on a grid of currents).
    """

    dt: float = 0.1
    surrogate: Surrogate | None = None

    def __post_init__(self) -> None:
        checks.require_positive("dt", self.dt, "ms")

    def check(self, params: LIFParams) -> None:
        """Refuse mechanisms that this neuron does not have, and periods in which two spikes could fall into a step."""
        checks.require_fields(type(self).__name__, params)
        if checks.concrete(params.t_ref):
            rule = f"t_ref must be dt = {self.dt:g} ms or more, so that at most one spike falls into a step"
            checks.require(np.asarray(params.t_ref) >= self.dt * (1.0 - 1e-6), "t_ref", params.t_ref, "ms", rule)

    def init_state(self, params: LIFParams, x: Array) -> PreciseState:
        """Return the neuron at rest, not refractory, in the shape of the input ``x`` and the parameters."""
        v = initial_voltage(params.v_rest, params, x)
        return PreciseState(v, jnp.zeros_like(v))

    def step(self, params: LIFParams, state: PreciseState, x: Array) -> tuple[PreciseState, PreciseOutput]:
        """Advance one step under the current ``x`` [N], pA, held over it."""
        v_inf = params.v_rest + params.r_m * jnp.asarray(x, state.v.dtype)
        waiting = jnp.minimum(state.refractory, self.dt)
        free = self.dt - waiting
        v = relax(state.v, v_inf, params.tau_m, free)
        # A neuron that already stands at threshold, such as one that rests above it, spikes at once.
        at_once = (free > 0) & (state.v >= params.v_th)
        spiked = at_once | ((v >= params.v_th) & (v_inf > params.v_th) & (free > 0))
        crossing = jnp.where(at_once, 0.0, _crossing_time(params, state.v, v_inf, spiked & ~at_once))
        return self.finish(params, state, v, jnp.maximum(v, state.v), spiked, waiting + crossing)

    def finish(
        self, params: LIFParams, state: PreciseState, v: Array, highest: Array, spiked: Array, time: Array
    ) -> tuple[PreciseState, PreciseOutput]:
        """Reset at ``time`` [N], ms from the step's start, who ``spiked``; the others are at ``v``, mV, at its end.

        ``highest`` is the step's highest voltage, for the surrogate.
        """
        waiting = jnp.minimum(state.refractory, self.dt)
        refractory = jnp.where(spiked, params.t_ref - (self.dt - time), state.refractory - waiting)
        after = jnp.where(spiked, params.v_reset, v)
        # No number here is none in the layers behind either, which see the spikes alone.
        lost = jnp.isnan(jax.lax.stop_gradient(after + jnp.where(spiked, time, 0.0)))
        after, spikes = (jnp.where(lost, jnp.nan, x) for x in (after, spiked.astype(v.dtype)))
        if self.surrogate is not None:
            soft = spike(threshold_distance(params, highest), self.surrogate)
            spikes = spikes + soft - jax.lax.stop_gradient(soft)
        return PreciseState(after, refractory), PreciseOutput(spikes, after, jnp.where(spiked, time, 0.0))


def _crossing_time(params: LIFParams, v: Array, v_inf: Array, crosses: Array) -> Array:
    """Return the time from v to threshold where it is crossed, 0 elsewhere, with a finite gradient in both cases."""
    # Where nothing is crossed the logarithm takes a harmless argument: its gradient, times 0, would still be nan.
    rise = jnp.where(crosses, params.v_th - v, 1.0)
    overdrive = jnp.where(crosses, v_inf - params.v_th, 1.0)
    return jnp.where(crosses, time_to_threshold(params, rise, overdrive), 0.0)


def time_to_threshold(params: LIFParams, rise: Array, overdrive: Array) -> Array:
    r"""Return :math:`\tau_m \ln\frac{v_\infty - v}{v_\infty - v_{th}}` of v_th - v and v_inf - v_th, mV, above 0."""
    return params.tau_m * jnp.log1p(rise / overdrive)


def nth_spike_time(output: PreciseOutput, n: int, dt: float) -> Float[Array, "*N"]:
    r"""Return the time of spike ``n`` of each neuron, counted from 0, with its exact gradient; shapes are static.

    Args:
        output: of a simulation, leaves [T] or [T, N].
        n: which spike; -1 for the last.
        dt: step, ms.

    Returns:
        [] or [N], ms; infinite where there is no such spike.

    Raises:
        ValueError: for a batch, or an n that is not whole.

    Example:
        >>> output = PreciseOutput(jnp.array([1.0, 0.0, 1.0]), jnp.zeros(3), jnp.array([0.5, 0.0, 0.25]))
        >>> float(nth_spike_time(output, 1, 1.0)), float(nth_spike_time(output, -1, 1.0))
        (2.25, 2.25)
    """
    if output.spikes.ndim > 2:
        raise ValueError(
            f"spikes has shape {output.spikes.shape}: it must be [T] or [T, N]; a batch goes through jax.vmap"
        )
    n = int(checks.integers("n", n, 0))
    fired = jax.lax.stop_gradient(output.spikes) > 0
    count = jnp.cumsum(fired, axis=0)
    chosen = fired & (count == (count[-1:] + n + 1 if n < 0 else n + 1))
    index = jnp.arange(fired.shape[0], dtype=output.v.dtype).reshape((-1,) + (1,) * (fired.ndim - 1))
    time = jnp.sum(jnp.where(chosen, index * dt + output.spike_time, 0.0), axis=0)
    return jnp.where(chosen.any(axis=0), time, jnp.inf)


def interval_rate(output: PreciseOutput, dt: float) -> Float[Array, "*N"]:
    r"""Read a firing rate off precise spike times: :math:`\nu = 1000\, (n - 1) / (t_n - t_1)`, with an exact gradient.

    Free of the rounding of a count over a window, it is the closed form under a constant current. It jumps by less than
    one interval's share where a spike enters or leaves at the end, and is 0, with gradient 0, below two spikes.

    Args:
        output: of a simulation, leaves [T] or [T, N].
        dt: step, ms.

    Returns:
        Rate in Hz, [] or [N].

    Example:
        >>> import jaxlif as jl
        >>> params = LIFParams(t_ref=2.0)
        >>> _, output = jl.simulate(PreciseLIF(dt=1.0), params, jnp.full(500, 300.0))
        >>> round(float(interval_rate(output, 1.0)), 9) == round(float(jl.theory.firing_rate(params, 300.0)), 9)
        True
    """
    ends = [nth_spike_time(output, n, dt) for n in (0, -1)]
    intervals = jnp.sum(jax.lax.stop_gradient(output.spikes), axis=0) - 1.0
    several = intervals >= 1.0
    first, last = (jnp.where(several, end, other) for end, other in zip(ends, (0.0, 1.0), strict=True))
    return jnp.where(several, 1000.0 * intervals / (last - first), 0.0)
