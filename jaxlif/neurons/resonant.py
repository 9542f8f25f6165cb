"""The resonant leaky integrate-and-fire neuron: voltage and adaptation current as one pair, integrated exactly."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import expm

from jaxlif import checks
from jaxlif.neurons.cell import Opened, Parameter, initial_voltage, over_kinds, relax
from jaxlif.neurons.lif import LIFParams, OnGrid, plain_state

# Below this the hyperbolic functions are their series: eight terms leave 0.25^8 / 17! = 4e-20 of 1.
_SERIES = 0.25
_TERMS = 8


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class ResonantLIFParams(LIFParams):
    r"""A :class:`LIFParams` with an adaptation current w that voltage and spikes drive.

    With :math:`a r_m > (\tau_w - \tau_m)^2 / (4 \tau_m \tau_w)` the pair oscillates, at a frequency of about
    :math:`\sqrt{a r_m / (\tau_m \tau_w)} / 2\pi` where :math:`a r_m` is large.

    Args:
        a: conductance of the adaptation, nS; more than :math:`-1 / r_m`, below which nothing holds the voltage.
        tau_w: its time constant, ms.
        b: jump of w at a spike, pA.

    Source: Richardson, Brunel & Hakim 2003, doi:10.1152/jn.00955.2002; the names are those of Brette & Gerstner 2005,
    doi:10.1152/jn.00686.2005.
    """

    a: Parameter = 20.0
    tau_w: Parameter = 50.0
    b: Parameter = 0.0

    def normalised(self) -> Self:
        r"""Return the same neuron with v_rest = 0, v_th = 1, r_m = 1, as :meth:`LIFParams.normalised` does.

        A current, ``b`` among them, becomes :math:`r_m I / (v_{th} - v_{rest})`, and ``a`` the number :math:`a r_m`.

        Example:
            >>> n = ResonantLIFParams(r_m=0.1, v_rest=-70.0, v_th=-50.0, a=30.0, b=40.0).normalised()
            >>> n.a, n.b
            (3.0, 0.2)
        """
        scaled = self.b * self.r_m / (self.v_th - self.v_rest)
        return replace(super().normalised(), a=self.a * self.r_m, b=scaled)

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        super().check()
        checks.require_positive("tau_w", self.tau_w, "ms")
        checks.require_finite("a", self.a, "nS")
        checks.require_finite("b", self.b, "pA")
        if checks.concrete(self.a, self.r_m):
            a, r_m = np.broadcast_arrays(self.a, self.r_m)
            checks.require(
                a * r_m > -1.0, "a", a, "nS", "a must be more than -1 / r_m, or the neuron has no stable rest"
            )


class Propagator(NamedTuple):
    """What a step adds to v, mV, and w, pA, per distance of either from the fixed point, each [N]."""

    vv: Array
    vw: Array
    wv: Array
    ww: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class _Prepared(ResonantLIFParams):
    """Parameters together with the propagator that follows from them."""

    propagator: Propagator


class ResonantState(NamedTuple):
    """Voltage [N], mV, adaptation current [N], pA, and the number of steps [N] that the neuron is still refractory."""

    v: Array
    w: Array
    refractory: Array


@dataclass(frozen=True)
class ResonantLIF(OnGrid):
    r"""The leaky integrate-and-fire neuron with a coupled adaptation current, which can resonate.

    .. math::
        \tau_m \dot v = v_{rest} - v + r_m (I - w), \qquad \tau_w \dot w = a (v - v_{rest}) - w

    At a spike v is reset and w grows by b. A step integrates the pair exactly, by the matrix exponential of the two
    equations in closed form, for the current held over it: it is stable for any step and time constants, where Euler's
    method is not. Refractoriness holds the voltage alone, and w relaxes to what belongs to it.

    It is the neuron of networks known as adLIF. :class:`AdaptiveLIF` with one term ``a`` holds w over each step
    instead, as NEST does, and has any number of terms.

    The arguments are those of :class:`LIF`; ``detach_reset`` leaves the surrogate in the gradient of the jump of w.

    Example:
        >>> import jaxlif as jl
        >>> params = jl.ResonantLIFParams(a=90.0, tau_w=40.0)
        >>> _, output = jl.simulate(jl.ResonantLIF(dt=1.0), params, jnp.full(400, 300.0))
        >>> v = output.v  # rises, swings back, and ends at rest + 30 mV / (1 + 9)
        >>> bool(v[:20].max() > -60.0), bool(v[20:].min() < -68.0), round(float(v[-1]), 3)
        (True, True, -67.0)

    Source: Richardson, Brunel & Hakim 2003, doi:10.1152/jn.00955.2002; in networks Bittar & Garner 2022,
    doi:10.3389/fnins.2022.865897, and Baronig et al. 2025, doi:10.1038/s41467-025-60878-z.
    """

    def check(self, params: ResonantLIFParams) -> None:
        """Refuse parameters of another neuron."""
        checks.require_params(self, params, ResonantLIFParams)

    def init_state(self, params: ResonantLIFParams, x: Array) -> ResonantState:
        """Return the neuron at rest, not refractory, without adaptation."""
        v = initial_voltage(params.v_rest, params, x)
        return ResonantState(v, jnp.zeros_like(v), jnp.zeros(v.shape, jnp.int32))

    def prepare(self, params: ResonantLIFParams) -> "_Prepared":
        """Return the parameters with the propagator beside them, so that a loop computes it once."""
        if isinstance(params, _Prepared):
            return params
        return _Prepared(**vars(params), propagator=propagator(params, self.dt))

    def integrate(self, params: ResonantLIFParams, state: ResonantState, x: Array) -> tuple[ResonantState, Array]:
        """Move voltage and adaptation one step under the current ``x`` [N], pA."""
        v, w = self._moved(params, state, x)
        return state._replace(w=self._beside_held(params, state, w)), v

    def _moved(self, params: ResonantLIFParams, state: ResonantState, x: Array) -> tuple[Array, Array]:
        p = self.prepare(params).propagator
        # The fixed point under this current.
        rise = params.r_m * jnp.asarray(x, state.v.dtype) / (1.0 + params.a * params.r_m)
        dv, dw = state.v - (params.v_rest + rise), state.w - params.a * rise
        return state.v + (p.vv * dv + p.vw * dw), state.w + (p.wv * dv + p.ww * dw)

    def _beside_held(self, params: ResonantLIFParams, state: ResonantState, w: Array) -> Array:
        """Return w, or where the voltage is held what it relaxes to beside it."""
        alone = relax(state.w, params.a * (state.v - params.v_rest), params.tau_w, self.dt)
        return jnp.where(state.refractory > 0, alone, w)

    def respond(self, params: ResonantLIFParams, *tau: Array) -> tuple[Array, Array]:
        """Return the changes of v, mV, and w, pA, [N], that 1 pA through low-pass filters of ``tau`` causes."""
        m, w = self.dt / params.tau_m, self.dt / params.tau_w
        # Of v, r_m w, and what the filters, the last of which the current meets first, add to v in a step, all in mV.
        size = 2 + len(tau)
        rows: list[Any] = [0.0] * size**2
        rows[:3] = -m, -m, 1.0
        rows[size : size + 2] = params.a * params.r_m * w, -w
        for i, t in enumerate(tau, 2):
            rows[i * size + i : i * size + i + 2] = -self.dt / t, *([self.dt] if i + 1 < size else [])
        entries = jnp.stack(jnp.broadcast_arrays(*rows), axis=-1)
        grown = expm(entries.reshape(*entries.shape[:-1], size, size))
        return params.r_m * m * grown[..., 0, -1], m * grown[..., 1, -1]

    def integrate_currents(
        self, params: ResonantLIFParams, state: ResonantState, x: Array, current: Array, response: tuple[Array, Array]
    ) -> tuple[ResonantState, Array]:
        """Move the pair one step under the currents [K, N], pA, too, which change within it: exactly."""
        v, w = self._moved(params, state, x)
        dv, dw = (over_kinds(r * current) for r in response)
        return state._replace(w=self._beside_held(params, state, w + dw)), v + dv

    def integrate_conductances(
        self, params: ResonantLIFParams, state: ResonantState, x: Array, opened: Opened
    ) -> tuple[ResonantState, Array]:
        """Move the pair one step under conductances too, which change within it: to sixth order."""
        dv, dw = pair_moves(params, state, x, opened, self.dt)
        return state._replace(w=self._beside_held(params, state, state.w + dw)), state.v + dv

    def emit(self, params: ResonantLIFParams, state: ResonantState, v: Array) -> tuple[Array, Array]:
        """Hold the refractory neurons, and let the others spike where v >= v_th."""
        return self.membrane.emit(params, plain_state(state), v)

    def settle(
        self, params: ResonantLIFParams, state: ResonantState, v: Array, spikes: Array
    ) -> tuple[ResonantState, Array]:
        """Reset the neurons that spiked, and let their adaptation jump."""
        plain, v = self.membrane.settle(params, plain_state(state), v, spikes)
        return ResonantState(plain.v, state.w + params.b * spikes, plain.refractory), v


def propagator(params: ResonantLIFParams, dt: float) -> Propagator:
    r"""Return :math:`e^{A\,dt} - 1 = e^\sigma (\cosh q + \frac{\sinh q}{q} (A\,dt - \sigma)) - 1` of the pair's matrix,
    sigma half the trace of A dt, q half the difference of its eigenvalues (Moler & Van Loan 2003).
    """
    m, w, gain = dt / jnp.asarray(params.tau_m), dt / jnp.asarray(params.tau_w), params.a * params.r_m
    half = 0.5 * (w - m)
    even, odd = _exponential(-0.5 * (m + w), half**2 - m * w * gain, m * w * (1.0 + gain))
    return Propagator(even + half * odd, -params.r_m * m * odd, params.a * w * odd, even - half * odd)


def pair_moves(
    params: ResonantLIFParams, state: ResonantState, x: Array, opened: Opened, dt: float
) -> tuple[Array, Array]:
    r"""Return how far a step moves v and w where conductances change within it, by a Magnus series of sixth order.

    Blanes, Casas, Oteo & Ros 2009, doi:10.1016/j.physrep.2008.11.001, section 5: :math:`M^{-1} (e^M - 1)\,c`, (M, c)
    an average of A and b of :math:`y' = A(s)\,y + b(s)`.
    """
    m, w = dt / params.tau_m, dt / params.tau_w
    leak = params.v_rest - state.v + params.r_m * (jnp.asarray(x, state.v.dtype) - state.w)
    target = params.a * (state.v - params.v_rest) - state.w

    def _at(g: Array, current: Array) -> Array:  # dt (A, b) [2, 3, N], a row for v and one for w
        closed, driven = -m * (1.0 + params.r_m * g), m * (leak + params.r_m * current)
        rows = (closed, -m * params.r_m, driven, w * params.a, -w, w * target)
        return jnp.stack(jnp.broadcast_arrays(*rows)).reshape(2, 3, *state.v.shape)

    nodes = [dt * (0.5 + shift) for shift in (-(0.15**0.5), 0.0, 0.15**0.5)]
    first, middle, last = map(_at, opened.conductance(*nodes), opened.current(*nodes))
    slope, bend = 15.0**0.5 / 3.0 * (last - first), 10.0 / 3.0 * (last - 2.0 * middle + first)
    c_1 = _commutator(middle, slope)
    c_2 = _commutator(middle, -(2.0 * bend + c_1) / 60.0)
    c_3 = _commutator(c_1 - 20.0 * middle - bend, slope + c_2)
    (a, b, p), (c, d, q) = middle + bend / 12.0 + c_3 / 240.0
    det, half = a * d - b * c, 0.5 * (a - d)
    even, odd = _exponential(0.5 * (a + d), half**2 + b * c, det)
    p, q = (d * p - b * q) / det, (a * q - c * p) / det
    return (even + half * odd) * p + b * odd * q, c * odd * p + (even - half * odd) * q


def _commutator(x: Array, y: Array) -> Array:
    """Return x y - y x of affine maps [2, 3, N]."""
    return jnp.sum(x[:, :2, None] * y[None] - y[:, :2, None] * x[None], axis=1)


def _exponential(sigma: Array, square: Array, det: Array) -> tuple[Array, Array]:
    r"""Return :math:`e^\sigma \cosh q - 1` and :math:`e^\sigma \sinh(q)/q` for q² = ``square`` of either sign; ``det``
    is sigma² - q². What a regime does not use takes a harmless argument: its gradient, times 0, would be nan.
    """
    apart, turning = square > _SERIES, square < -_SERIES
    q = jnp.sqrt(jnp.where(apart, square, 1.0))
    fast = jnp.where(apart, sigma, -1.0) - q
    slow = det / fast  # the sum of both is sigma twice, their product det
    decays = 0.5 * (jnp.expm1(slow) + jnp.expm1(fast)), -jnp.exp(slow) * jnp.expm1(-2.0 * q) / (2.0 * q)
    y = jnp.sqrt(jnp.where(turning, -square, 1.0))
    decay = jnp.exp(sigma)
    oscillation = jnp.expm1(sigma) * jnp.cos(y) - 2.0 * jnp.sin(0.5 * y) ** 2, decay * jnp.sin(y) / y
    x = jnp.where(apart | turning, 0.0, square)
    above_one = 0.5 * x * _sinhc(0.25 * x) ** 2  # cosh q - 1 = 2 sinh²(q/2)
    limit = jnp.expm1(sigma) + decay * above_one, decay * _sinhc(x)
    cases = zip(decays, oscillation, limit, strict=True)
    even, odd = (jnp.where(apart, d, jnp.where(turning, o, near)) for d, o, near in cases)
    return even, odd


def _sinhc(square: Array) -> Array:
    """Return sinh(q)/q of a small q² by its series."""
    total = jnp.ones_like(square)
    for k in range(_TERMS - 1, 0, -1):
        total = 1.0 + square / (2 * k * (2 * k + 1)) * total
    return total
