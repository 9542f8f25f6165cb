"""Write a neuron as a Brian2 model: equations, conditions and values, and a script that runs it."""

from typing import Any, NamedTuple

from numpy.typing import ArrayLike

from jaxlif.checks import choice, number, require_positive, whole
from jaxlif.interop.nest import held_time, one_neuron, one_trace, written
from jaxlif.neurons.adaptive import AdaptiveLIFParams, VoltageCoupling
from jaxlif.neurons.lif import LIFParams


class Brian2Model(NamedTuple):
    """The arguments of a Brian2 ``NeuronGroup``, as text.

    ``namespace`` holds a value and the name of its unit for every parameter, "1" for none; ``initial`` an expression
    for every variable that does not start at 0. The input is a ``TimedArray`` named ``I``.
    """

    equations: str
    threshold: str
    reset: str
    refractory: str
    method: str
    namespace: dict[str, tuple[float, str]]
    initial: dict[str, str]


def to_brian2(params: LIFParams, *, dt: float = 0.1, escape_noise: bool = False) -> Brian2Model:
    r"""Write a neuron for Brian2, with jaxlif's spikes: one by one without noise, in their law with it.

    Three conventions differ and are made up for. Exponential Euler holds the adaptation over a step, as jaxlif does,
    where Brian2's "exact" would let it decay inside. Brian2 tests after the threshold's decay, jaxlif before: the jump
    is :math:`\gamma e^{dt/\tau_\gamma}`. Brian2 counts the refractory period from the start of the step of the spike,
    so that it is one step longer there. Brian2's spike times are those starts: jaxlif's less dt.

    Args:
        params: one neuron, every leaf a number; of :class:`LIF`, or :class:`AdaptiveLIF` with its reset "value".
        dt: step, ms, for which the refractory period is rounded up; Brian2's clock must have the same.
        escape_noise: spike at random, as :class:`EscapeNoise` does, with ``delta_v`` and ``lambda_0``.

    Returns:
        The model.

    Raises:
        ValueError: for a bad value, several neurons, or escape noise of a :class:`LIFParams`.

    Example:
        >>> model = to_brian2(LIFParams())
        >>> print(model.equations)
        dv/dt = (v_rest - v + r_m*(I(t)))/tau_m : volt (unless refractory)
        >>> model.threshold, model.refractory, model.namespace["t_ref"]
        ('v >= v_th', 't_ref + dt', (5.0, 'ms'))

    Source: Stimberg, Brette & Goodman 2019, doi:10.7554/eLife.47314.
    """
    require_positive("dt", number("dt", dt, "ms"), "ms")
    choice("escape_noise", escape_noise, (False, True))
    params = one_neuron(params)
    if isinstance(params, AdaptiveLIFParams):
        whole = params
    elif escape_noise:
        raise ValueError("escape_noise is set: params must be AdaptiveLIFParams, with delta_v (mV) and lambda_0 (1/ms)")
    else:
        whole = AdaptiveLIFParams(**vars(params))
    return Brian2Model(
        equations="\n".join(_equations(whole)),
        threshold=_threshold(whole, escape_noise),
        reset="\n".join(["v = v_reset", *_jumps(whole)]),
        refractory="t_ref + dt",
        method="exponential_euler",
        namespace=_namespace(whole, dt, escape_noise),
        initial={"v": "v_rest"} | ({} if whole.coupling is None else {"x": _TARGET}),
    )


def to_script(model: Brian2Model, current: ArrayLike, *, dt: float = 0.1, neurons: int = 1, seed: int = 1) -> str:
    """Write a Brian2 script that drives copies of a neuron with a current and prints their spikes.

    The last line of its output is JSON: "times", in ms by jaxlif's clock (a spike in step n is at (n + 1) dt), and
    "neurons", from 0.

    Args:
        model: what :func:`to_brian2` returned for the same ``dt``.
        current: [T], pA, held over each step.
        dt: step, ms.
        neurons: how many copies; with escape noise they differ.
        seed: of Brian2's random numbers.

    Returns:
        The text of a Python program that needs Brian2 and nothing of jaxlif.

    Raises:
        ValueError: for a current of another rank, or a dt that is not positive.

    Example:
        >>> script = to_script(to_brian2(LIFParams()), [0.0, 200.0])
        >>> _ = compile(script, "neuron.py", "exec")
    """
    require_positive("dt", number("dt", dt, "ms"), "ms")
    neurons, seed = whole("neurons", neurons, 1), whole("seed", seed)
    values = [f"    {name!r}: {_quantity(*pair)}," for name, pair in model.namespace.items()]
    initial = [f"group.{name} = {expression!r}" for name, expression in model.initial.items()]
    return _SCRIPT.format(
        dt=dt,
        seed=seed,
        neurons=neurons,
        current=written(one_trace(current)),
        namespace="\n".join(values),
        initial="\n".join(initial),
        **{name: getattr(model, name) for name in ("equations", "threshold", "reset", "refractory", "method")},
    )


_TARGET = "k_x*log1p(exp((v - v_x)/k_x))"


def _equations(params: AdaptiveLIFParams) -> list[str]:
    k, m, j = (range(len(terms)) for terms in (params.eta, params.gamma, params.a))
    current = " - ".join(["I(t)", *(f"w_{i}" for i in k), *(f"u_{i}" for i in j)])
    lines = [f"dv/dt = (v_rest - v + r_m*({current}))/tau_m : volt (unless refractory)"]
    lines += [f"dw_{i}/dt = -w_{i}/tau_eta_{i} : amp" for i in k]
    lines += [f"dh_{i}/dt = -h_{i}/tau_gamma_{i} : volt" for i in m]
    lines += [f"du_{i}/dt = (a_{i}*(v - v_rest) - u_{i})/tau_a_{i} : amp" for i in j]
    return lines + ([] if params.coupling is None else [f"dx/dt = ({_TARGET} - x)/tau_x : volt"])


def _threshold(params: AdaptiveLIFParams, escape_noise: bool) -> str:
    terms = ["v_th", *(f"h_{i}" for i in range(len(params.gamma))), *([] if params.coupling is None else ["b_x*x"])]
    theta = " + ".join(terms)
    return f"rand() < -expm1(-lambda_0*dt*exp((v - ({theta}))/delta_v))" if escape_noise else f"v >= {theta}"


def _jumps(params: AdaptiveLIFParams) -> list[str]:
    jumps = [f"w_{i} += eta_{i}" for i in range(len(params.eta))]
    return jumps + [f"h_{i} += gamma_{i}*exp(dt/tau_gamma_{i})" for i in range(len(params.gamma))]


def _namespace(params: AdaptiveLIFParams, dt: float, escape_noise: bool) -> dict[str, tuple[float, str]]:
    values: dict[str, Any] = {name: (getattr(params, name), unit) for name, unit in _UNITS.items()}
    values["t_ref"] = (held_time(params, dt), "ms")
    for name, unit in _TERMS.items():
        values |= {f"{name}_{i}": (value, unit) for i, value in enumerate(getattr(params, name))}
    noise = {"delta_v": (params.delta_v, "mV"), "lambda_0": (params.lambda_0, "kHz")}  # 1 kHz is 1/ms
    return values | _coupling(params.coupling) | (noise if escape_noise else {})


def _coupling(coupling: VoltageCoupling | None) -> dict[str, Any]:
    if coupling is None:
        return {}
    c = coupling
    return {"b_x": (c.b, "1"), "tau_x": (c.tau, "ms"), "v_x": (c.v_i, "mV"), "k_x": (c.k, "mV")}


def _quantity(value: float, unit: str) -> str:
    return repr(value) if unit == "1" else f"{value!r}*brian2.{unit}"


_UNITS = {"tau_m": "ms", "r_m": "Gohm", "v_rest": "mV", "v_th": "mV", "v_reset": "mV"}
_TERMS = {"eta": "pA", "tau_eta": "ms", "gamma": "mV", "tau_gamma": "ms", "a": "nS", "tau_a": "ms"}

_SCRIPT = """\
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
