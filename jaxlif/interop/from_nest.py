"""A neuron of NEST, its name and parameters as NEST has them, as a cell and its parameters.

MODELS is the table: a model is its defaults and a function from NEST's values to a cell and params.
"""

import math
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif import checks
from jaxlif.neurons import cell as protocol
from jaxlif.neurons.adex import AdEx, AdExParams
from jaxlif.neurons.lif import LIF, LIFParams, refractory_steps
from jaxlif.neurons.precise import PreciseLIF
from jaxlif.synapses import (
    AlphaConductance,
    AlphaCurrent,
    Conductance,
    ConductanceParams,
    CurrentParams,
    DoubleExponentialConductance,
    DoubleExponentialConductanceParams,
    ExponentialCurrent,
    PreciseSynaptic,
    Synapse,
    Synaptic,
    SynapticParams,
    VoltageJump,
)

Values = Mapping[str, Any]


class NestModel(NamedTuple):
    """NEST's defaults of what ``build`` reads, which makes (cell, params) of all values and dt. ``fixed`` has the only
    values that may be given of what has no counterpart here, beside those that all models have in common.
    """

    defaults: Values
    build: Callable[[dict[str, Any], float], tuple[Any, Any]]
    fixed: Mapping[str, tuple[Any, ...]] = {}


def from_nest(model: str, parameters: Values, *, dt: float) -> tuple[Any, Any]:
    r"""Return the cell and the parameters of a neuron of NEST, with the same voltages and spikes.

    Its receptors are the kinds of synapse [excitatory, inhibitory], in this order. NEST sends a weight w > 0 to the
    first and w < 0 to the second; here you do, by the row of ``Drive.arrivals``:

    ========== ====================== ==============================================================
    model      arrivals in a step     of a weight w
    ========== ====================== ==============================================================
    \*_psc_\*  [2, N], pA             w, with its sign, in row 0 where w > 0 and in row 1 where w < 0
    delta      [N], mV                w, all of a step added up
    \*_cond_\* [2, N], nS             w in row 0 where w > 0, \|w\| in row 1 where w < 0
    multi      [ports, N], nS         w in the row of its port, from 0 where NEST counts from 1
    ========== ====================== ==============================================================

    What arrives in NEST at t is the arrival of step t/dt - 1; of a precise model, \*_ps, it arrives in that step at its
    own time, see :func:`jaxlif.timed_arrivals`. A constant current ``I_e`` belongs to ``Drive.input``.
    NEST integrates aeif models to ``gsl_error_tol``, which leaves 1e-5 mV at its default, and resets where its solver
    halts behind the peak, which leaves 0.02 mV where V_peak is close to V_th; aeif_psc_delta adds a jump within the
    step, where its solver first halts: here it comes at the step's end. With t_ref = 0 NEST's aeif models may spike
    several times in a step, here once: dt must be shorter than their intervals.

    Args:
        model: NEST's name of it.
        parameters: what differs from NEST's defaults, in its names and units; a number, or [N] for N neurons. What
            ``neuron.get()`` returns will do. A neuron starts at E_L, with closed synapses; NEST's at
            its V_m, which another E_L leaves at its default: to compare, give NEST both.
        dt: step, ms; NEST's resolution.

    Returns:
        The cell and its params.

    Raises:
        ValueError: for a model or a parameter that has no counterpart here, or breaks a rule.

    Example:
        >>> cell, params = from_nest("iaf_psc_exp", {"C_m": 100.0, "tau_syn_ex": 5.0}, dt=0.1)
        >>> params.neuron.r_m, params.synapse.tau_syn.tolist()
        (0.1, [5.0, 2.0])

    Source: NEST 3.10; Rotter & Diesmann 1999, doi:10.1007/s004220050570.
    """
    checks.choice("model", model, tuple(MODELS))
    checks.positive("dt", dt, "ms")
    entry = MODELS[model]
    given = {name: _checked(model, name, value) for name, value in parameters.items() if name not in _BOOKKEEPING}
    values = dict(entry.defaults) | {name: value for name, value in given.items() if name in entry.defaults}
    fixed = _FIXED | dict(entry.fixed) | {"V_m": (values["E_L"],)}
    for name in given.keys() - values.keys():
        _require_fixed(model, name, given[name], fixed)
    cell, params = entry.build(values, dt)
    checks.check_params(params)
    protocol.check_cell(cell, params)
    return cell, params


def _checked(model: str, name: str, value: Any) -> Any:
    """Return a switch as it is, and a number or numbers [N] by the rule of its name."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if name == "V_min":  # may be infinite
        return value
    unit = next((unit for start, unit in _UNITS.items() if name.startswith(start)), "")
    number = checks.numbers(name, value, unit)
    return checks.require_positive(name, number, unit) if name.startswith(("C_m", "tau_", "g_L")) else number


def _require_fixed(model: str, name: str, value: Any, fixed: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse an unknown parameter, and a value that has no counterpart."""
    if name not in fixed:
        raise ValueError(f"parameters has {name}: {model} has no such parameter, or none that is known here")
    if not any(np.all(np.equal(value, allowed)) for allowed in fixed[name]):
        allowed = " or ".join(f"{x:g}" if isinstance(x, float) else str(x) for x in fixed[name])
        rule = _INSTEAD.get(name, "it has no counterpart here")
        raise ValueError(f"{name} = {value}: {rule}, and {name} must be {allowed}")


def kinds(values: Values, name: str) -> Array:
    """Return a parameter of both receptors, ``<name>_ex`` and ``<name>_in``: [2] or [2, N]."""
    return jnp.stack(jnp.broadcast_arrays(*(jnp.asarray(values[f"{name}_{kind}"], float) for kind in ("ex", "in"))))


def neuron_params(values: Values) -> LIFParams:
    """Return the membrane of an iaf model, by its tau_m or its g_L."""
    tau_m = values["tau_m"] if "tau_m" in values else values["C_m"] / values["g_L"]
    return LIFParams(
        tau_m=tau_m,
        r_m=tau_m / values["C_m"],
        v_rest=values["E_L"],
        v_th=values["V_th"],
        v_reset=values["V_reset"],
        t_ref=values["t_ref"],
    )


def _with(synapse: Synapse, own: Any, values: Values, dt: float) -> tuple[Any, Any]:
    """Return a neuron with a synapse, an exponential one where NEST's has such a current."""
    if "Delta_T" not in values:
        return Synaptic(LIF(dt), synapse), SynapticParams(neuron=neuron_params(values), synapse=own)
    named = {field: values[name] for field, name in _AEIF_FIELDS.items()}
    circuit = {"c_m": values["C_m"], "g_l": values["g_L"]}
    return Synaptic(AdEx(dt), synapse), SynapticParams(neuron=AdExParams.from_circuit(**circuit, **named), synapse=own)


def _delta(values: dict[str, Any], dt: float) -> tuple[Any, Any]:
    kept = values.get("refractory_input", False)
    return _with(VoltageJump(refractory_input=bool(kept)), None, values, dt)


def _currents(synapse: Synapse, values: dict[str, Any], dt: float) -> tuple[Any, Any]:
    return _with(synapse, CurrentParams(tau_syn=kinds(values, "tau_syn")), values, dt)


def _precise(synapse: Synapse, values: dict[str, Any], dt: float) -> tuple[Any, Any]:
    own = None if isinstance(synapse, VoltageJump) else CurrentParams(tau_syn=kinds(values, "tau_syn"))
    # A refractory period is a whole number of NEST's steps, which begin at the spike.
    t_ref = np.asarray(refractory_steps(checks.require_not_negative("t_ref", values["t_ref"], "ms"), dt)) * dt
    neuron = neuron_params(values | {"t_ref": t_ref})
    return PreciseSynaptic(PreciseLIF(dt), synapse), SynapticParams(neuron=neuron, synapse=own)


def _conductances(synapse: Synapse, values: dict[str, Any], dt: float) -> tuple[Any, Any]:
    own = ConductanceParams(tau_syn=kinds(values, "tau_syn"), e_rev=kinds(values, "E"))
    return _with(synapse, own, values, dt)


def _ports(synapse: Synapse, params: type, values: dict[str, Any], dt: float) -> tuple[Any, Any]:
    """Return a neuron whose ports have parameters each, [ports]."""
    names = {"e_rev": "E_rev"} | {name: name for name in ("tau_syn", "tau_rise", "tau_decay") if name in values}
    each = {field: jnp.atleast_1d(jnp.asarray(values[name], float)) for field, name in names.items()}
    if len({row.shape for row in each.values()}) > 1:
        sizes = ", ".join(f"{names[field]} {row.size}" for field, row in each.items())
        raise ValueError(f"E_rev and the time constants have different numbers of ports: {sizes}")
    return _with(synapse, params(**each), values, dt)


def _beta(values: dict[str, Any], dt: float) -> tuple[Any, Any]:
    own = DoubleExponentialConductanceParams(
        tau_rise=kinds(values, "tau_rise"), tau_decay=kinds(values, "tau_decay"), e_rev=kinds(values, "E")
    )
    return _with(DoubleExponentialConductance(), own, values, dt)


_FAST, _REVERSALS = {"tau_syn_ex": 0.2, "tau_syn_in": 2.0}, {"E_ex": 0.0, "E_in": -85.0}
_PSC = {"C_m": 250.0, "tau_m": 10.0, "E_L": -70.0, "V_th": -55.0, "V_reset": -70.0, "t_ref": 2.0}
_COND = {"C_m": 250.0, "g_L": 16.6667, "E_L": -70.0, "V_th": -55.0, "V_reset": -60.0, "t_ref": 2.0} | _REVERSALS
_AEIF = {"C_m": 281.0, "g_L": 30.0, "E_L": -70.6, "V_peak": 0.0, "V_reset": -60.0, "t_ref": 0.0}
_AEIF |= {"V_th": -50.4, "Delta_T": 2.0, "a": 4.0, "tau_w": 144.0, "b": 80.5}
_AEIF_FIELDS = {"v_rest": "E_L", "v_th": "V_peak", "v_reset": "V_reset", "t_ref": "t_ref", "v_t": "V_th"}
_AEIF_FIELDS |= {"delta_t": "Delta_T", "a": "a", "tau_w": "tau_w", "b": "b"}
_STILL: Mapping[str, tuple[Any, ...]] = {"w": (0.0,)}
_NO_FLOOR = {"V_min": (-math.inf, -sys.float_info.max)}
_NO_CURRENT = {name: (0.0,) for name in ("I_syn_ex", "I_syn_in", "dI_syn_ex", "dI_syn_in")}
_CLOSED_PORTS: Mapping[str, tuple[Any, ...]] = {"g": (0.0,), "dg": (0.0,)}
_NO_CONDUCTANCE = {"g_ex": (0.0,), "g_in": (0.0,), "dg_ex": (0.0,), "dg_in": (0.0,)}

MODELS: dict[str, NestModel] = {
    "iaf_psc_delta": NestModel(_PSC | {"refractory_input": False}, _delta, _NO_FLOOR),
    "iaf_psc_exp": NestModel(
        _PSC | {"tau_syn_ex": 2.0, "tau_syn_in": 2.0},
        partial(_currents, ExponentialCurrent()),
        # rho, the rate of escape at threshold, acts where delta, its width, is not 0.
        _NO_CURRENT | {"delta": (0.0,), "rho": (0.01,)},
    ),
    "iaf_psc_alpha": NestModel(
        _PSC | {"tau_syn_ex": 2.0, "tau_syn_in": 2.0}, partial(_currents, AlphaCurrent()), _NO_CURRENT | _NO_FLOOR
    ),
    # NEST 3.10 lists refractory_input of this one and refuses to set it.
    "iaf_psc_delta_ps": NestModel(_PSC, partial(_precise, VoltageJump()), _NO_FLOOR | {"refractory_input": (False,)}),
    "iaf_psc_exp_ps": NestModel(
        _PSC | {"tau_syn_ex": 2.0, "tau_syn_in": 2.0}, partial(_precise, ExponentialCurrent()), _NO_CURRENT | _NO_FLOOR
    ),
    "iaf_psc_alpha_ps": NestModel(
        _PSC | {"tau_syn_ex": 2.0, "tau_syn_in": 2.0},
        partial(_precise, AlphaCurrent()),
        _NO_CURRENT | _NO_FLOOR | {"dI_syn_ex": (0.0,), "dI_syn_in": (0.0,)},
    ),
    "iaf_cond_exp": NestModel(_COND | _FAST, partial(_conductances, Conductance()), _NO_CONDUCTANCE),
    "iaf_cond_alpha": NestModel(_COND | _FAST, partial(_conductances, AlphaConductance()), _NO_CONDUCTANCE),
    "iaf_cond_beta": NestModel(
        _COND | {"tau_rise_ex": 0.2, "tau_rise_in": 2.0, "tau_decay_ex": 0.2, "tau_decay_in": 2.0},
        _beta,
        _NO_CONDUCTANCE,
    ),
    "aeif_psc_delta": NestModel(_AEIF, _delta, {**_STILL, "refractory_input": (False,)}),
    "aeif_psc_exp": NestModel(_AEIF | _FAST, partial(_currents, ExponentialCurrent()), {**_STILL, **_NO_CURRENT}),
    "aeif_psc_alpha": NestModel(_AEIF | _FAST, partial(_currents, AlphaCurrent()), {**_STILL, **_NO_CURRENT}),
    "aeif_cond_exp": NestModel(
        _AEIF | _FAST | _REVERSALS, partial(_conductances, Conductance()), {**_STILL, **_NO_CONDUCTANCE}
    ),
    "aeif_cond_alpha": NestModel(
        _AEIF | _FAST | _REVERSALS, partial(_conductances, AlphaConductance()), {**_STILL, **_NO_CONDUCTANCE}
    ),
    "aeif_cond_alpha_multisynapse": NestModel(
        _AEIF | {"E_rev": 0.0, "tau_syn": 2.0},
        partial(_ports, AlphaConductance(), ConductanceParams),
        {**_STILL, **_CLOSED_PORTS},
    ),
    "aeif_cond_beta_multisynapse": NestModel(
        _AEIF | {"E_rev": 0.0, "tau_rise": 2.0, "tau_decay": 20.0},
        partial(_ports, DoubleExponentialConductance(), DoubleExponentialConductanceParams),
        {**_STILL, **_CLOSED_PORTS},
    ),
}

# What all models have, with the values that change nothing here.
_FIXED: dict[str, tuple[Any, ...]] = {
    "I_e": (0.0,),
    "frozen": (False,),
    "ignore_and_spike": (False,),
    "tau_minus": (20.0,),
    "tau_minus_triplet": (110.0,),
    "tau_Ca": (10000.0,),
    "beta_Ca": (0.001,),
}
_INSTEAD = {
    "I_e": "a constant current belongs to the input, Drive.input, in pA",
    "V_m": "a neuron starts at E_L, another voltage goes into the state",
    "tau_minus": "it belongs to plastic synapses",
}
_BOOKKEEPING = frozenset(
    "Ca archiver_length available capacity element_type elementsize global_id gsl_error_tol has_connections "
    "ignore_and_spike_interval ignore_and_spike_offset instantiations is_refractory local model model_id n_receptors "
    "node_uses_wfr post_trace recordables supports_precise_spikes synaptic_elements t_ref_remaining t_spike thread "
    "thread_local_id type_id vp".split()
)
_UNITS = {"V_": "mV", "E_": "mV", "tau_": "ms", "t_": "ms", "C_m": "pF", "g_": "nS", "I_": "pA"}
