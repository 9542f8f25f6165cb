"""Write a neuron as a NEST model: its name, its parameters in NEST's names and units, and a script that runs it."""

from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxlif.checks import choice, number, numbers, require_positive, whole
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.neurons.lif import LIFParams, refractory_steps

SYNAPSES = {"delta": "iaf_psc_delta", "exp": "iaf_psc_exp"}


def to_nest(
    params: LIFParams, *, dt: float = 0.1, synapse: str = "delta", tau_syn: tuple[float, float] = (2.0, 2.0)
) -> tuple[str, dict[str, Any]]:
    r"""Write a neuron in the names and units of NEST.

    A :class:`LIFParams` becomes ``iaf_psc_delta`` or ``iaf_psc_exp``, with the same spikes at the same times. An
    :class:`AdaptiveLIFParams` becomes ``gif_psc_exp``, which always spikes at random, with the rate
    :math:`\lambda_0 e^{(v - \theta)/\Delta_V}`: it is :class:`EscapeNoise` of :class:`AdaptiveLIF`, and the neuron
    without noise has no counterpart in NEST. The parameters are those of the reset "value".

    Args:
        params: one neuron, every leaf a number.
        dt: step, ms; NEST's resolution must be the same. ``t_ref`` is rounded up to whole steps, as in jaxlif.
        synapse: "delta" or "exp", of a :class:`LIFParams`; ``gif_psc_exp`` has exponential ones.
        tau_syn: time constants of the exponential synapses, excitatory and inhibitory, ms.

    Returns:
        The model's name and its parameters: pF, nS, mV, ms, pA, and 1/s for ``lambda_0``. ``V_m`` starts at rest.

    Raises:
        ValueError: for a bad value, several neurons, or what the NEST model does not have: a coupling, a subthreshold
            adaptation, and, in ``gif_psc_exp``, a refractory period of 0.

    Example:
        >>> name, parameters = to_nest(LIFParams(t_ref=2.05))
        >>> name, parameters["C_m"], parameters["t_ref"]
        ('iaf_psc_delta', 100.0, 2.1)
        >>> to_nest(AdaptiveLIFParams(lambda_0=0.5))[1]["lambda_0"]
        500.0

    Source: Gewaltig & Diesmann 2007, doi:10.4249/scholarpedia.1430; NEST 3.10, models iaf_psc_delta, iaf_psc_exp and
    gif_psc_exp; Pozzorini et al. 2015, doi:10.1371/journal.pcbi.1004275.
    """
    require_positive("dt", number("dt", dt, "ms"), "ms")
    if not isinstance(tau_syn, tuple | list) or len(tau_syn) != 2:
        raise ValueError(f"tau_syn = {tau_syn!r}: tau_syn must be a pair of times, ms")
    for name, tau in zip(("tau_syn.0", "tau_syn.1"), tau_syn, strict=True):
        require_positive(name, number(name, tau, "ms"), "ms")
    choice("synapse", synapse, tuple(SYNAPSES))
    params = one_neuron(params)
    if isinstance(params, AdaptiveLIFParams):
        return "gif_psc_exp", _gif(params, dt) | _synapses(tau_syn)
    return SYNAPSES[synapse], _iaf(params, dt) | (_synapses(tau_syn) if synapse == "exp" else {})


def to_script(
    model: tuple[str, dict[str, Any]], current: ArrayLike, *, dt: float = 0.1, neurons: int = 1, seed: int = 1
) -> str:
    """Write a PyNEST script that drives copies of a neuron with a current and prints their spikes.

    The last line of its output is JSON: "times", in ms by jaxlif's clock (a spike in step n is at (n + 1) dt), and
    "neurons", from 0. A current generator's value takes two steps to act, which the script subtracts.

    Args:
        model: what :func:`to_nest` returned for the same ``dt``.
        current: [T], pA, held over each step.
        dt: step, ms.
        neurons: how many copies; those of ``gif_psc_exp`` differ in their noise.
        seed: of NEST's random numbers.

    Returns:
        The text of a Python program that needs NEST and nothing of jaxlif.

    Raises:
        ValueError: for a current of another rank, or a dt that is not positive.

    Example:
        >>> script = to_script(to_nest(LIFParams()), [0.0, 200.0])
        >>> _ = compile(script, "neuron.py", "exec")
    """
    name, parameters = model
    require_positive("dt", number("dt", dt, "ms"), "ms")
    neurons, seed = whole("neurons", neurons, 1), whole("seed", seed, 1)
    values = one_trace(current)
    return _SCRIPT.format(dt=dt, seed=seed, name=name, parameters=parameters, neurons=neurons, current=written(values))


def one_neuron(params: Any) -> Any:
    """Return the parameters of one neuron with plain numbers for leaves, or raise ValueError for several neurons.

    Args:
        params: a :class:`LIFParams` or :class:`AdaptiveLIFParams`.

    Example:
        >>> one_neuron(LIFParams(tau_m=np.float64(20.0))).tau_m
        20.0
    """
    # Not a subclass, whose further terms would be lost without a word.
    if type(params) not in (LIFParams, AdaptiveLIFParams):
        raise ValueError(f"params is a {type(params).__name__}: it must be LIFParams or AdaptiveLIFParams")
    params.check()

    def _number(path, leaf):
        if np.ndim(leaf):
            field = ".".join(str(getattr(key, "name", getattr(key, "idx", key))) for key in path)
            raise ValueError(
                f"{field} has shape {np.shape(leaf)}: it must be a number, one neuron is written at a time"
            )
        return float(leaf)

    return jax.tree_util.tree_map_with_path(_number, params)


def one_trace(current: ArrayLike) -> np.ndarray:
    """Return a current [T], pA, in double precision, or raise ValueError for anything else."""
    values = np.asarray(numbers("current", current, "pA", rank=1), float)
    if not len(values):
        raise ValueError("current has 0 steps: at least one step is needed")
    return values


def written(current: np.ndarray) -> str:
    """Return a current [T] as an expression of Python, with a value that is held written once.

    Example:
        >>> written(np.array([0.0, 0.0, 0.0, 1.5, 1.5, 0.0]))
        '[0.0]*3 + [1.5]*2 + [0.0]*1'
        >>> written(np.array([0.1, 0.2, 0.3]))
        '[0.1, 0.2, 0.3]'
    """
    starts = np.flatnonzero(np.diff(current, prepend=np.nan))
    if 2 * len(starts) > len(current):
        return repr(current.tolist())
    lengths = np.diff(starts, append=len(current))
    return " + ".join(f"[{current[n].item()!r}]*{count}" for n, count in zip(starts, lengths, strict=True))


def held_time(params: LIFParams, dt: float) -> float:
    """Return the refractory period rounded up to whole steps, ms, as jaxlif's cells do.

    Args:
        params: one neuron.
        dt: step, ms.

    Example:
        >>> held_time(LIFParams(t_ref=2.05), 0.1)
        2.1
    """
    return round(int(refractory_steps(params.t_ref, dt)) * dt, 9)  # 21 * 0.1 is a little more than 2.1


def _membrane(params: LIFParams, dt: float) -> dict[str, Any]:
    potentials = {"E_L": params.v_rest, "V_m": params.v_rest, "V_reset": params.v_reset}
    return {"C_m": params.c_m, "t_ref": held_time(params, dt)} | potentials


def _iaf(params: LIFParams, dt: float) -> dict[str, Any]:
    return _membrane(params, dt) | {"tau_m": params.tau_m, "V_th": params.v_th}


def _gif(params: AdaptiveLIFParams, dt: float) -> dict[str, Any]:
    _require_gif(params, dt)
    return _membrane(params, dt) | {
        "g_L": params.g_l,
        "V_T_star": params.v_th,
        "Delta_V": params.delta_v,
        "lambda_0": 1000.0 * params.lambda_0,  # 1/ms to 1/s
        "q_stc": list(params.eta),
        "tau_stc": list(params.tau_eta),
        "q_sfa": list(params.gamma),
        "tau_sfa": list(params.tau_gamma),
    }


def _synapses(tau_syn: tuple[float, float]) -> dict[str, float]:
    return {"tau_syn_ex": float(tau_syn[0]), "tau_syn_in": float(tau_syn[1])}


def _require_gif(params: AdaptiveLIFParams, dt: float) -> None:
    if params.coupling is not None:
        raise ValueError(
            "coupling is set: NEST's gif_psc_exp has no threshold that follows the voltage, it must be None"
        )
    if params.a:
        raise ValueError(f"a = {params.a} nS: NEST's gif_psc_exp has no subthreshold adaptation, a must be ()")
    if held_time(params, dt) == 0.0:
        rule = f"NEST's gif_psc_exp resets in the refractory steps, t_ref must be one step of {dt:g} ms or more"
        raise ValueError(f"t_ref = {params.t_ref:g} ms: {rule}")


_SCRIPT = """\
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
