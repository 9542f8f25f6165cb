"""Write a neuron for NEST or Brian2: its parameters in their names and units, and a script that runs it."""

from itertools import groupby
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Shaped

from jaxlif.checks import choice, numbers, positive, whole
from jaxlif.interop.nest_receptors import RECEPTORS, receptors
from jaxlif.neurons.a_current import ACurrent
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.neurons.adex import AdExParams
from jaxlif.neurons.lif import LIFParams, refractory_steps
from jaxlif.neurons.mechanisms import Mechanism, MembraneCurrent, VoltageCoupling
from jaxlif.synapses import SynapticParams

# NEST's names, and the fields here. V_m starts at rest.
_MEMBRANE = {"C_m": "c_m", "E_L": "v_rest", "V_m": "v_rest", "V_reset": "v_reset"}
_IAF = _MEMBRANE | {"tau_m": "tau_m", "V_th": "v_th"}
_COND = _MEMBRANE | {"g_L": "g_l", "V_th": "v_th"}
_SPIKES = {"q_stc": "eta", "tau_stc": "tau_eta", "q_sfa": "gamma", "tau_sfa": "tau_gamma"}
_GIF = _MEMBRANE | _SPIKES | {"g_L": "g_l", "V_T_star": "v_th", "Delta_V": "delta_v"}
_AEIF = _MEMBRANE | {"g_L": "g_l", "V_th": "v_t", "Delta_T": "delta_t", "V_peak": "v_th"}
_AEIF |= {name: name for name in ("a", "tau_w", "b")}

# Brian2's units of the fields here; a field of several terms becomes one name for each.
_UNITS = {"tau_m": "ms", "r_m": "Gohm", "v_rest": "mV", "v_th": "mV", "v_reset": "mV"}
_TERMS = {"eta": "pA", "tau_eta": "ms", "gamma": "mV", "tau_gamma": "ms", "a": "nS", "tau_a": "ms"}
_EXPONENTIAL = {"v_t": "mV", "delta_t": "mV", "a": "nS", "tau_w": "ms", "b": "pA"}
# Bounded by the peak, as in NEST: in the last step before a spike the voltage may be anything above it.
_ADEX = """\
dv/dt = (v_rest - v_b + delta_t*exp((v_b - v_t)/delta_t) + r_m*(I(t) - w))/tau_m : volt (unless refractory)
dw/dt = (a*(v_b - v_rest) - w)/tau_w : amp
v_b = clip(v, -1*volt, v_th) : volt"""
# Of what follows the voltage with the state x the parameters are tau_x, v_x, k_x and b_x, of the threshold, or a_x.
_LOW_PASSED = {"tau": ("tau", "ms"), "v": ("v_i", "mV"), "k": ("k", "mV")}
_TARGET = "k_{x}*log1p(exp((v - v_{x})/k_{x}))"
# Of an A-current the state x is what is not inactivated; its current is held over a step, as here.
_GATED = {"tau": ("tau_h", "ms"), "v": ("v_h", "mV"), "m": ("v_m", "mV"), "g": ("g", "nS"), "e": ("e_k", "mV")}
_OPEN = "1/(1 + exp((v - v_{x})/(8*mV)))"
_A_CURRENT = "i_{x} = g_{x}/(1 + exp((m_{x} - v)/(8*mV)))*{x}*(v - e_{x}) : amp (constant over dt)"


class Brian2Model(NamedTuple):
    """The arguments of a Brian2 ``NeuronGroup``, as text; its input is a ``TimedArray`` named ``I``."""

    equations: str
    threshold: str
    reset: str
    refractory: str
    method: str
    namespace: dict[str, tuple[float, str]]  # of every parameter the value and the name of its unit, "1" for none
    initial: dict[str, str]  # an expression for every variable that does not start at 0


def to_nest(
    params: LIFParams | SynapticParams, *, dt: float = 0.1, synapse: str = "delta"
) -> tuple[str, dict[str, Any]]:
    r"""Write a neuron in the names and units of NEST.

    A :class:`LIFParams` becomes ``iaf_psc_delta`` or that of another synapse, with the same spikes at the same times.
    An :class:`AdaptiveLIFParams` becomes ``gif_psc_exp``, which is :class:`EscapeNoise` of :class:`AdaptiveLIF`: the
    neuron without noise has no counterpart in NEST. The parameters are those of the reset "value". An
    :class:`AdExParams` becomes an ``aeif`` model. The inverse is :func:`from_nest`.

    Args:
        params: one neuron, every leaf a number, or :class:`SynapticParams` of it and of kinds [excitatory, inhibitory];
            else the synapses are NEST's.
        dt: step, ms; NEST's resolution must be the same. ``t_ref`` is rounded up to whole steps, as in jaxlif.
        synapse: "delta", "exp" or "alpha", currents, or "cond_exp", "cond_alpha" or "cond_beta", conductances, of which
            the last is not an AdEx's; ``gif_psc_exp`` has exponential currents.

    Returns:
        The model's name and its parameters: pF, nS, mV, ms, pA, and 1/s for ``lambda_0``.

    Raises:
        ValueError: for a bad value, several neurons, or what ``gif_psc_exp`` does not have: a coupling, a subthreshold
            adaptation, a refractory period of 0.

    Example:
        >>> name, parameters = to_nest(LIFParams(t_ref=2.05))
        >>> name, parameters["C_m"], parameters["t_ref"]
        ('iaf_psc_delta', 100.0, 2.1)

    Source: NEST 3.10, models iaf_psc_delta, iaf_psc_exp and gif_psc_exp; Pozzorini et al. 2015,
    doi:10.1371/journal.pcbi.1004275.
    """
    positive("dt", dt, "ms")
    neuron = params.neuron if isinstance(params, SynapticParams) else params
    choice("synapse", synapse, tuple(RECEPTORS)[: -1 if isinstance(neuron, AdExParams) else None])
    own: dict[str, Any] = receptors(params, synapse) if isinstance(params, SynapticParams) else {}
    neuron = _one_neuron(neuron)
    own["t_ref"] = held = _held_time(neuron, dt)
    name = synapse if synapse.startswith("cond") else f"psc_{synapse}"
    if isinstance(neuron, AdExParams):
        return f"aeif_{name}", _named(neuron, _AEIF) | own
    if not isinstance(neuron, AdaptiveLIFParams):
        return f"iaf_{name}", _named(neuron, _IAF if name.startswith("psc") else _COND) | own
    if "tau_syn_ex" in own and name != "psc_exp":
        raise ValueError(f'synapse = "{synapse}": NEST\'s gif_psc_exp has exponential currents, synapse must be "exp"')
    if neuron.coupling is not None:
        raise ValueError("coupling is set: NEST's gif_psc_exp has no threshold that follows the voltage")
    if neuron.mechanisms:
        found = type(neuron.mechanisms[0]).__name__
        raise ValueError(f"mechanisms.0 = {found}: NEST's gif_psc_exp has no such current, mechanisms must be ()")
    if neuron.a:
        raise ValueError(f"a = {neuron.a} nS: NEST's gif_psc_exp has no subthreshold adaptation, a must be ()")
    if held == 0.0:
        raise ValueError(f"t_ref = {neuron.t_ref:g} ms: NEST's gif_psc_exp resets in it, it must be {dt:g} ms or more")
    # lambda_0 from 1/ms to 1/s
    return "gif_psc_exp", _named(neuron, _GIF) | own | {"lambda_0": 1000.0 * neuron.lambda_0}


def to_brian2(params: LIFParams, *, dt: float = 0.1, escape_noise: bool = False) -> Brian2Model:
    r"""Write a neuron for Brian2, with jaxlif's spikes: one by one without noise, in their law with it.

    Three conventions differ and are made up for. Exponential Euler holds the adaptation over a step, as jaxlif does,
    where Brian2's "exact" would let it decay inside. Brian2 tests after the threshold's decay, jaxlif before: the jump
    is :math:`\gamma e^{dt/\tau_\gamma}`. Brian2 counts the refractory period from the start of the step of the spike,
    so that it is one step longer there. Brian2's spike times are those starts: jaxlif's less dt. An
    :class:`AdExParams` is integrated by a Runge-Kutta method of fixed steps there and reset at their ends, not at the
    peak: its spikes come near jaxlif's as dt becomes small.

    Args:
        params: one neuron, every leaf a number; of :class:`LIF` or :class:`AdaptiveLIF`, with the reset "value", or of
            :class:`AdEx`.
        dt: step, ms, for which the refractory period is rounded up; Brian2's clock must have the same.
        escape_noise: spike at random, as :class:`EscapeNoise` does, with ``delta_v`` and ``lambda_0``.

    Raises:
        ValueError: for a bad value, several neurons, escape noise of a :class:`LIFParams`, or a mechanism other than
            :class:`MembraneCurrent` and :class:`ACurrent`.

    Example:
        >>> model = to_brian2(LIFParams())
        >>> model.equations
        'dv/dt = (v_rest - v + r_m*(I(t)))/tau_m : volt (unless refractory)'
        >>> model.threshold, model.refractory, model.namespace["t_ref"]
        ('v >= v_th', 't_ref + dt', (5.0, 'ms'))

    Source: Stimberg, Brette & Goodman 2019, doi:10.7554/eLife.47314.
    """
    positive("dt", dt, "ms")
    choice("escape_noise", escape_noise, (False, True))
    params = _one_neuron(params)
    if isinstance(params, AdExParams) and not escape_noise:
        return _exponential(params, dt)
    if not isinstance(params, AdaptiveLIFParams):
        if escape_noise:
            raise ValueError("escape_noise is set: it needs AdaptiveLIFParams, with delta_v (mV) and lambda_0 (1/ms)")
        params = AdaptiveLIFParams(**vars(params))
    eta, gamma, a = (range(len(terms)) for terms in (params.eta, params.gamma, params.a))
    following = _following(params)
    gated = [x for x, mechanism in following.items() if isinstance(mechanism, ACurrent)]
    targets = {x: (_OPEN if x in gated else _TARGET).format(x=x) for x in following}
    opened = [f"i_{x}" if x in gated else f"a_{x}*{x}" for x in following if x != "x"]
    current = " - ".join(["I(t)", *(f"w_{i}" for i in eta), *(f"u_{i}" for i in a), *opened])
    threshold = " + ".join(["v_th", *(f"h_{i}" for i in gamma), *(["b_x*x"] if "x" in following else [])])
    equations = [
        f"dv/dt = (v_rest - v + r_m*({current}))/tau_m : volt (unless refractory)",
        *(f"dw_{i}/dt = -w_{i}/tau_eta_{i} : amp" for i in eta),
        *(f"dh_{i}/dt = -h_{i}/tau_gamma_{i} : volt" for i in gamma),
        *(f"du_{i}/dt = (a_{i}*(v - v_rest) - u_{i})/tau_a_{i} : amp" for i in a),
        *(f"d{x}/dt = ({to} - {x})/tau_{x} : {'1' if x in gated else 'volt'}" for x, to in targets.items()),
        *(_A_CURRENT.format(x=x) for x in gated),
    ]
    jumps = [f"w_{i} += eta_{i}" for i in eta] + [f"h_{i} += gamma_{i}*exp(dt/tau_gamma_{i})" for i in gamma]
    noisy = f"rand() < -expm1(-lambda_0*dt*exp((v - ({threshold}))/delta_v))"
    return Brian2Model(
        equations="\n".join(equations),
        threshold=noisy if escape_noise else f"v >= {threshold}",
        reset="\n".join(["v = v_reset", *jumps]),
        refractory="t_ref + dt",
        method="exponential_euler",
        namespace=_namespace(params, dt, escape_noise),
        initial={"v": "v_rest"} | targets,
    )


def _exponential(params: AdExParams, dt: float) -> Brian2Model:
    """Return the equations of an exponential neuron."""
    values: dict[str, Any] = {name: (getattr(params, name), unit) for name, unit in (_UNITS | _EXPONENTIAL).items()}
    namespace = values | {"t_ref": (_held_time(params, dt), "ms")}
    return Brian2Model(_ADEX, "v >= v_th", "v = v_reset\nw += b", "t_ref + dt", "rk4", namespace, {"v": "v_rest"})


def to_script(
    model: tuple[str, dict[str, Any]] | Brian2Model,
    current: Shaped[ArrayLike, "T"],
    *,
    dt: float = 0.1,
    neurons: int = 1,
    seed: int = 1,
) -> str:
    """Write a Python script that drives copies of a neuron with a current in NEST or Brian2 and prints their spikes.

    It needs nothing of jaxlif. The last line of its output is JSON: "times", in ms by jaxlif's clock (a spike in step n
    is at (n + 1) dt), and "neurons", from 0.

    Args:
        model: what :func:`to_nest` or :func:`to_brian2` returned for the same ``dt``.
        current: [T], pA, held over each step.
        dt: step, ms.
        neurons: how many copies; with escape noise they differ.
        seed: of the program's random numbers, 1 or more.

    Example:
        >>> script = to_script(to_nest(LIFParams()), [0.0, 200.0])
        >>> _ = compile(script, "neuron.py", "exec")
    """
    values = np.asarray(numbers("current", current, "pA", rank=1), float).tolist()
    if not values:
        raise ValueError("current has 0 steps: at least one step is needed")
    held = [(x, len(list(copies))) for x, copies in groupby(values)]  # a value that is held is written once
    written = " + ".join(f"[{x!r}]*{n}" for x, n in held) if 2 * len(held) <= len(values) else repr(values)
    dt, neurons, seed = positive("dt", dt, "ms"), whole("neurons", neurons, 1), whole("seed", seed, 1)
    given = {"dt": dt, "neurons": neurons, "seed": seed, "current": written}
    if not isinstance(model, Brian2Model):
        if not (isinstance(model, tuple) and len(model) == 2):
            raise ValueError(f"model = {type(model).__name__}: model must be what to_nest or to_brian2 returned")
        return _NEST_SCRIPT.format(name=model[0], parameters=model[1], **given)
    quantities = {n: repr(x) if unit == "1" else f"{x!r}*brian2.{unit}" for n, (x, unit) in model.namespace.items()}
    lines = {
        "namespace": "\n".join(f"    {name!r}: {quantity}," for name, quantity in quantities.items()),
        "initial": "\n".join(f"group.{name} = {expression!r}" for name, expression in model.initial.items()),
    }
    return _BRIAN2_SCRIPT.format(**given | model._asdict() | lines)


def _one_neuron(params: Any) -> Any:
    """Return the parameters of one neuron with plain numbers for leaves."""
    # Not a subclass, whose further terms would be lost without a word.
    if type(params) not in (LIFParams, AdaptiveLIFParams, AdExParams):
        raise ValueError(f"params is a {type(params).__name__}: it must be LIFParams, AdaptiveLIFParams or AdExParams")
    params.check()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if np.ndim(leaf):
            field, found = jax.tree_util.keystr(path, simple=True, separator="."), np.shape(leaf)
            raise ValueError(f"{field} has shape {found}: it must be a number, one neuron is written at a time")
    return jax.tree.map(float, params)


def _held_time(params: LIFParams, dt: float) -> float:
    """Return the refractory period rounded up to whole steps, ms, as jaxlif's cells do."""
    return round(int(refractory_steps(params.t_ref, dt)) * dt, 9)  # 21 * 0.1 is a little more than 2.1


def _named(params: LIFParams, names: dict[str, str]) -> dict[str, Any]:
    values = {name: getattr(params, field) for name, field in names.items()}
    return {name: list(x) if isinstance(x, tuple) else x for name, x in values.items()}


def _following(params: AdaptiveLIFParams) -> dict[str, Mechanism]:
    """Return what follows the voltage by the name of its state; what has no equations here is refused."""
    found: dict[str, Mechanism] = {f"x_{i}": mechanism for i, mechanism in enumerate(params.mechanisms)}
    found |= {} if params.coupling is None else {"x": params.coupling}
    for x, mechanism in found.items():
        field, known = (
            ("coupling", [VoltageCoupling]) if x == "x" else (f"mechanisms.{x[2:]}", [MembraneCurrent, ACurrent])
        )
        if type(mechanism) not in known:  # a subclass may be another
            raise ValueError(f"{field} = {type(mechanism).__name__}: it has no Brian2 equations yet")
    return found


def _namespace(params: AdaptiveLIFParams, dt: float, escape_noise: bool) -> dict[str, tuple[float, str]]:
    """Return value and unit of every parameter, in Brian2's names."""
    values: dict[str, Any] = {name: (getattr(params, name), unit) for name, unit in _UNITS.items()}
    values["t_ref"] = (_held_time(params, dt), "ms")
    for name, unit in _TERMS.items():
        values |= {f"{name}_{i}": (value, unit) for i, value in enumerate(getattr(params, name))}
    for x, mechanism in _following(params).items():
        low_passed = _LOW_PASSED | ({"b": ("b", "1")} if x == "x" else {"a": ("a", "nS")})
        rows = _GATED if isinstance(mechanism, ACurrent) else low_passed
        values |= {f"{name}_{x}": (getattr(mechanism, field), unit) for name, (field, unit) in rows.items()}
    noise = {"delta_v": (params.delta_v, "mV"), "lambda_0": (params.lambda_0, "kHz")}  # 1 kHz is 1/ms
    return values | (noise if escape_noise else {})


# A step current generator's value takes two steps to act.
_NEST_SCRIPT = """\
# A neuron of jaxlif in NEST. Prints JSON: "times" of spikes (ms), each the end of its step, and "neurons".
import json

import nest

dt = {dt!r}  # ms
parameters = {parameters!r}
current = {current}  # pA

nest.ResetKernel()
nest.resolution = dt
nest.rng_seed = {seed!r}
neurons = nest.Create({name!r}, {neurons!r}, params=parameters)
times = [round((n + 1) * dt, 9) for n in range(len(current) + 1)]
steps = {{"amplitude_times": times, "amplitude_values": current + [0.0]}}
generator = nest.Create("step_current_generator", params=steps)
recorder = nest.Create("spike_recorder")
nest.Connect(generator, neurons, syn_spec={{"delay": dt}})
nest.Connect(neurons, recorder, syn_spec={{"delay": dt}})
nest.Simulate(round((len(current) + 3) * dt, 9))  # a current takes two steps to act, a spike one to be recorded

first, last = 0.5 * dt, (len(current) + 0.5) * dt
events = recorder.events
spikes = [(float(t) - 2.0 * dt, int(i) - 1) for t, i in zip(events["times"], events["senders"])]
spikes = sorted((t, i) for t, i in spikes if first < t < last)
print(json.dumps({{"times": [t for t, i in spikes], "neurons": [i for t, i in spikes]}}))
"""

_BRIAN2_SCRIPT = """\
# A neuron of jaxlif in Brian2. Prints JSON: "times" of spikes (ms), each the end of its step, and "neurons".
import json

import brian2

brian2.prefs.codegen.target = "numpy"
brian2.seed({seed!r})
dt = {dt!r}*brian2.ms
brian2.defaultclock.dt = dt

equations = '''
{equations}
'''
reset = '''
{reset}
'''
current = {current}
namespace = {{
    "I": brian2.TimedArray(current*brian2.pA, dt=dt),
{namespace}
}}
group = brian2.NeuronGroup(
    {neurons!r},
    equations,
    threshold={threshold!r},
    reset=reset,
    refractory={refractory!r},
    method={method!r},
    namespace=namespace,
)
{initial}
monitor = brian2.SpikeMonitor(group)
brian2.run(len(current)*dt)

times = [float(t) for t in (monitor.t + dt)/brian2.ms]
print(json.dumps({{"times": times, "neurons": [int(i) for i in monitor.i]}}))
"""
