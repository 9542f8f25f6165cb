"""A conductance-based point neuron that makes its own spikes, to compare the integrate-and-fire neurons with."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxlif import checks
from jaxlif.neurons.cell import Parameter, SpikingOutput, initial_voltage, relax


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class HodgkinHuxleyParams:
    r"""Physics of a cortical neuron with sodium, potassium and slow M currents.

    .. math::
        c_m \dot v = g_l (e_l - v) + g_{na} m^3 h\, (e_{na} - v) + (g_k n^4 + g_m p) (e_k - v) + I

    The defaults are the regular-spiking neuron of Pospischil et al.: their conductances per area on a membrane of
    30 000 µm² (1 µF/cm²), for a resting potential of -71.9 mV, 0.14 GΩ there, and a rheobase near 160 pA.

    Args:
        c_m: membrane capacitance, pF, scalar or [N] like every field.
        g_l: leak conductance, nS.
        g_na: largest sodium conductance, nS.
        g_k: largest delayed-rectifier conductance, nS.
        g_m: largest conductance of the slow M current, which adapts the rate, nS.
        e_l: leak reversal potential, mV.
        e_na: sodium reversal potential, mV.
        e_k: potassium reversal potential, mV.
        v_t: shifts the activation of sodium and potassium, and with it the threshold, mV.
        tau_max: time scale of the M current, whose largest time constant is tau_max / (2 sqrt(3.3)), ms.

    Example:
        >>> params = HodgkinHuxleyParams()
        >>> round(params.c_m / params.g_l, 1)  # the passive time constant, ms
        48.8

    Source: Pospischil et al. 2008, doi:10.1007/s00422-008-0263-8.
    """

    c_m: Parameter = 300.0
    g_l: Parameter = 6.15
    g_na: Parameter = 16_800.0
    g_k: Parameter = 1_800.0
    g_m: Parameter = 22.5
    e_l: Parameter = -70.3
    e_na: Parameter = 50.0
    e_k: Parameter = -90.0
    v_t: Parameter = -56.2
    tau_max: Parameter = 608.0

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        for field, unit in (("c_m", "pF"), ("g_l", "nS"), ("tau_max", "ms")):
            checks.require_positive(field, getattr(self, field), unit)
        for field in ("g_na", "g_k", "g_m"):
            checks.require_not_negative(field, getattr(self, field), "nS")
        for field in ("e_l", "e_na", "e_k", "v_t"):
            checks.require_finite(field, getattr(self, field), "mV")


class HodgkinHuxleyState(NamedTuple):
    """Voltage [N], mV, and the gates [N] in 0..1: sodium ``m`` and ``h``, potassium ``n``, M current ``p``."""

    v: Array
    m: Array
    h: Array
    n: Array
    p: Array


@dataclass(frozen=True)
class HodgkinHuxley:
    r"""The conductance-based neuron, integrated by exponential Euler in substeps.

    In a substep the gates relax exactly towards their values at the present voltage, and then the voltage relaxes
    exactly towards :math:`\sum_i g_i e_i / \sum_i g_i` at the new gates. Staggered like this the error of the voltage
    is of second order in dt / substeps where the gates start at their steady state, as in Strang's splitting; substeps
    of 0.01 ms place the spikes to a few microseconds. The spike is an event of the output only, where the voltage
    crossed 0 mV upwards in the step: there is no reset, and no gradient passes through it.

    Args:
        dt: step, ms.
        substeps: number of integration steps in a step.

    Example:
        >>> cell, params = HodgkinHuxley(dt=0.1), HodgkinHuxleyParams()
        >>> state = cell.init_state(params, jnp.asarray(300.0))
        >>> state, output = cell.step(params, state, jnp.asarray(300.0))
        >>> round(float(output.v), 2)
        -70.2

    Source: Rush & Larsen 1978, doi:10.1109/TBME.1978.326270 (exponential integration of gates);
    Strang 1968, doi:10.1137/0705041.
    """

    dt: float = 0.1
    substeps: int = 10

    def __post_init__(self) -> None:
        checks.require_positive("dt", self.dt, "ms")
        checks.require(self.substeps >= 1, "substeps", self.substeps, "", "substeps must be 1 or more")

    def check(self, params: HodgkinHuxleyParams) -> None:
        """Refuse parameters of another neuron."""
        checks.require_params(self, params, HodgkinHuxleyParams)

    def init_state(self, params: HodgkinHuxleyParams, x: Array) -> HodgkinHuxleyState:
        """Return the neuron at e_l with gates at their steady state; the M current then lowers v by 1 or 2 mV."""
        v = initial_voltage(params.e_l, params, x)
        return HodgkinHuxleyState(v, *(steady for steady, _ in gates(v, params)))

    def step(
        self, params: HodgkinHuxleyParams, state: HodgkinHuxleyState, x: Array
    ) -> tuple[HodgkinHuxleyState, SpikingOutput]:
        """Advance one step under the current ``x`` [N], pA, held over it."""
        current = jnp.asarray(x, state.v.dtype)
        substep = self.dt / self.substeps
        new = jax.lax.fori_loop(0, self.substeps, lambda _, s: _substep(params, s, current, substep), state)
        crossed = (state.v < 0.0) & (new.v >= 0.0)
        return new, SpikingOutput(crossed.astype(new.v.dtype), new.v)


def gates(v: Array, params: HodgkinHuxleyParams) -> tuple[tuple[Array, Array], ...]:
    """Return steady state and time constant of the gates m, h, n and p at a voltage (Pospischil et al., eq. 3 to 5)."""
    u = v - params.v_t
    rates = (
        (1.28 * linoid((13.0 - u) / 4.0), 1.4 * linoid((u - 40.0) / 5.0)),
        (0.128 * jnp.exp((17.0 - u) / 18.0), 4.0 * jax.nn.sigmoid((u - 40.0) / 5.0)),
        (0.16 * linoid((15.0 - u) / 5.0), 0.5 * jnp.exp((10.0 - u) / 40.0)),
    )
    fast = tuple((alpha / (alpha + beta), 1.0 / (alpha + beta)) for alpha, beta in rates)
    y = (v + 35.0) / 20.0
    slow = (jax.nn.sigmoid(2.0 * y), params.tau_max / (3.3 * jnp.exp(y) + jnp.exp(-y)))
    return (*fast, slow)


def linoid(x: Array) -> Array:
    r"""The rectifying rate function :math:`x / (e^x - 1)`, 1 at x = 0, with its derivative finite everywhere."""
    # Near 0 the series, to x^4: the quotient is 0/0, and its derivative loses digits before that. Away from 0
    # x e^{-x} / (1 - e^{-x}) for positive x, since e^x would overflow. Both branches stay finite, or the unused one
    # would turn the gradient into NaN.
    near = jnp.abs(x) < 0.02
    size = jnp.where(near, 1.0, jnp.abs(x))
    quotient = size / -jnp.expm1(-size) * jnp.exp(-jnp.maximum(x, 0.0))
    series = 1.0 - x / 2.0 + x**2 / 12.0 - x**4 / 720.0
    return jnp.where(near, series, quotient)


def _substep(params: HodgkinHuxleyParams, state: HodgkinHuxleyState, current: Array, dt: float) -> HodgkinHuxleyState:
    v, *now = state
    relaxed = (relax(gate, *target, dt) for gate, target in zip(now, gates(v, params), strict=True))
    m, h, n, p = relaxed
    g_na = params.g_na * m**3 * h
    g_k = params.g_k * n**4 + params.g_m * p
    g = params.g_l + g_na + g_k
    v_inf = (params.g_l * params.e_l + g_na * params.e_na + g_k * params.e_k + current) / g
    return HodgkinHuxleyState(relax(v, v_inf, params.c_m / g, dt), m, h, n, p)
