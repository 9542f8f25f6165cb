"""Bad calls of the public functions: each is refused in one line of ours, or gives what the same good call gives.

A call that works is spoiled in one argument: another type, rank or length, an empty array, a number that is none. The
verdict knows nothing of the function: an exception is a ValueError or TypeError raised by a line of jaxlif that names
an argument or a field; a result is finite, and where the spoiled argument only writes the same numbers in another form
(a list, integers, booleans, single precision) it is the good call's. A fixed seed draws the calls: the suite makes a
tenth of them, `python -m tests.test_bad_calls` all 500.
"""

import json
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped

import jaxlif as jl
from jaxlif import FICell, losses, networks, plotting, spiketrains, stimulus, theory
from jaxlif.fitting.bounds import coordinates
from jaxlif.recordings.spikes import detect_spikes

SEED, CALLS = 10, 500
GROUND = ("theory", "losses", "spiketrains", "stimulus", "surrogate")
STEPS = 40
HOME = str(Path(jl.__file__).parent)


class Call(NamedTuple):
    """A good call; ``free`` names arguments of any shape, ``loose`` of any length, ``wide`` of [T] or [T, N]."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    free: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()
    wide: tuple[str, ...] = ()


def _noise(seed: int, low: float, high: float, size: int = STEPS) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, size).round(3)


TRAIN = np.zeros(STEPS)
TRAIN[[5, 17, 29]] = 1.0
OTHER = np.roll(TRAIN, 2)
BUSY = (_noise(2, 0.0, 1.0, 3 * STEPS).reshape(STEPS, 3) < 0.3).astype(float)
TIMES, THEIRS = np.array([3.0, 11.5, 20.0, 31.0]), np.array([3.5, 12.0, 25.0])
CURRENT, VOLTAGE = _noise(0, 0.0, 400.0), _noise(1, -80.0, -50.0)
LEVELS = np.linspace(20.0, 400.0, 8)
RATES = np.array([0.0, 0.0, 5.0, 18.0, 29.0, 38.0, 45.0, 52.0])
PASSIVE = {"passive_currents": np.array([-50.0, -25.0, -10.0]), "passive_voltages": np.array([-75.0, -72.5, -71.0])}
LOGITS, LABELS = _noise(2, -2.0, 2.0, 3 * STEPS).reshape(STEPS, 3), np.arange(STEPS) % 3
PARAMS, KEY = jl.LIFParams(), jax.random.key(0)
KEYED = {"key": KEY}
CELL = FICell(name="a", currents=LEVELS, rates=RATES, **PASSIVE)
ADAM = optax.adam(0.1)


def _simulated():
    current = np.random.default_rng(0).normal(150.0, 100.0, 200).repeat(20)
    output = jl.simulate(jl.LIF(dt=0.5), PARAMS, current)[1]
    return jl.Recording(current=current, voltage=output.v, spikes=output.spikes, dt=0.5)


def _parabola(params):
    return (params.tau_m - 20.0) ** 2


def _linear(params, batch, key):
    x, y = batch
    return jnp.mean((x @ params["w"] - y) ** 2)


def _recording(**changed):
    good = {"current": CURRENT[None], "voltage": VOLTAGE[None], "dt": 0.5, "spikes": TRAIN[None] > 0, "start": 0.0}
    found = jl.Recording(**good | changed)
    return found.current, found.voltage, found.dt, found.spikes


def _population(**changed):
    return jl.fit_fi_population([replace(CELL, **changed)]).rmse


def _population_options(**changed):
    return jl.fit_fi_population([CELL], **changed).rmse


RECORDING = _simulated()
SHAPED = {"params": PARAMS, "current": CURRENT}
DRAWN = KEYED | {"duration": 20.0, "dt": 0.5}
ONE_FIT = {"params": PARAMS, "bounds": {"tau_m": (2.0, 60.0)}, "optimizer": ADAM, "num_steps": 3}
DATA = (np.ones((8, 2)), np.ones(8))
ONE_TRAINING = {
    "params": {"w": np.zeros(2)},
    "bounds": {"w": jl.REAL},
    "data": DATA,
    "optimizer": ADAM,
    "epochs": 1,
    "batch_size": 4,
    "key": KEY,
    "validation": DATA,
}
ANY = ("current", "rate", "mean", "sd", "t", "v_0", "weight", "tau_syn")

GOOD = {
    "theory.equilibrium": Call(theory.equilibrium, SHAPED, ANY),
    "theory.rheobase": Call(theory.rheobase, {"params": PARAMS}),
    "theory.firing_rate": Call(theory.firing_rate, SHAPED, ANY),
    "theory.spike_latency": Call(theory.spike_latency, SHAPED | {"current": LEVELS + 200.0, "v_0": -65.0}, ANY),
    "theory.step_response": Call(theory.step_response, SHAPED | {"current": 120.0, "t": TIMES, "v_0": -60.0}, ANY),
    "theory.diffusion_rate": Call(
        theory.diffusion_rate, {"params": PARAMS, "mean": 120.0, "sd": 40.0, "dt": 0.1}, ("mean", "sd")
    ),
    "theory.interval_cv": Call(theory.interval_cv, {"params": PARAMS, "mean": -58.0, "sd": 2.0}, ("mean", "sd")),
    "theory.voltage_density": Call(
        theory.voltage_density, {"params": PARAMS, "mean": -58.0, "sd": 2.0, "v": VOLTAGE}, (*ANY, "v")
    ),
    "theory.rate_response": Call(
        theory.rate_response, {"params": PARAMS, "mean": -58.0, "sd": 2.0, "frequency": 20.0}, (*ANY, "frequency")
    ),
    "theory.shunted_rate": Call(theory.shunted_rate, SHAPED | {"g": 5.0, "sd": 2.0}, ANY),
    "theory.double_exponential_psp": Call(
        theory.double_exponential_psp,
        {"params": PARAMS, "weight": 50.0, "tau_rise": 1.0, "tau_decay": 5.0, "t": TIMES},
        (*ANY, "tau_rise", "tau_decay"),
    ),
    "theory.psp_peak": Call(
        theory.psp_peak, {"params": PARAMS, "weight": 50.0, "tau_syn": 5.0, "tau_rise": 1.0}, (*ANY, "tau_rise")
    ),
    "theory.jump_moments": Call(theory.jump_moments, {"params": PARAMS, "weight": 0.5, "rate": RATES}, ANY),
    "theory.synaptic_moments": Call(theory.synaptic_moments, {"weight": 5.0, "rate": RATES, "tau_syn": 5.0}, ANY),
    "theory.voltage_moments": Call(
        theory.voltage_moments, {"params": PARAMS, "weight": 5.0, "rate": RATES, "tau_syn": 5.0}, ANY
    ),
    "theory.nernst": Call(
        theory.nernst, {"inside": 12.0, "outside": 145.0, "valence": 1}, ("inside", "outside", "valence")
    ),
    "theory.goldman": Call(
        theory.goldman,
        {
            "permeability": np.ones(2),
            "inside": np.array([140.0, 10.0]),
            "outside": np.array([5.0, 110.0]),
            "valence": np.array([1.0, -1.0]),
        },
    ),
    "losses.voltage_mse": Call(
        losses.voltage_mse, {"v": VOLTAGE, "target": VOLTAGE[::-1].copy(), "mask": np.ones(STEPS)}
    ),
    "losses.rate_mse": Call(losses.rate_mse, {"rate": RATES, "target": RATES[::-1].copy()}),
    "losses.spike_mask": Call(losses.spike_mask, {"spikes": TRAIN, "before": 2, "after": 3}, wide=("spikes",)),
    "losses.spike_count_rate": Call(losses.spike_count_rate, {"spikes": TRAIN, "dt": 0.5}, wide=("spikes",)),
    "losses.interval_cv": Call(losses.interval_cv, {"spikes": BUSY[:, 0], "at_least": 3}, wide=("spikes",)),
    "losses.count_correlation": Call(
        losses.count_correlation, {"spikes": BUSY, "dt": 0.5, "width": 2.0}, loose=("spikes",)
    ),
    "losses.van_rossum": Call(losses.van_rossum, {"spikes": TRAIN, "target": OTHER, "tau": 5.0, "dt": 0.5}),
    "losses.point_process_log_likelihood": Call(
        losses.point_process_log_likelihood,
        {"log_rate": 0.05 * VOLTAGE, "spikes": TRAIN, "dt": 0.5, "active": 1.0 - OTHER},
    ),
    "losses.bits_per_spike": Call(losses.bits_per_spike, {"log_likelihood": -60.0, "num_spikes": 20, "duration": 1e3}),
    "spiketrains.spike_times": Call(spiketrains.spike_times, {"spikes": TRAIN, "dt": 0.5}, wide=("spikes",)),
    "spiketrains.on_grid": Call(spiketrains.on_grid, {"times": TIMES, "dt": 0.5, "num_steps": 80}, loose=("times",)),
    "spiketrains.isi": Call(spiketrains.isi, {"times": TIMES}, loose=("times",)),
    "spiketrains.cv": Call(spiketrains.cv, {"times": TIMES}, loose=("times",)),
    "spiketrains.coincidence_factor": Call(
        spiketrains.coincidence_factor,
        {"data": TIMES, "model": THEIRS, "duration": 50.0, "delta": 2.0},
        loose=("data", "model"),
    ),
    "spiketrains.md_star": Call(
        spiketrains.md_star,
        {"data_trains": [TIMES, THEIRS], "model_trains": [TIMES + 0.5, THEIRS], "delta": 2.0},
    ),
    "stimulus.step": Call(
        stimulus.step, {"amplitude": 100.0, "start": 5.0, "stop": 15.0, "duration": 20.0, "dt": 0.5}, ("amplitude",)
    ),
    "stimulus.ramp": Call(
        stimulus.ramp, {"start_value": 0.0, "stop_value": 100.0, "duration": 20.0, "dt": 0.5}, ("start_value",)
    ),
    "stimulus.sinusoid": Call(
        stimulus.sinusoid, {"mean": 10.0, "amplitude": 100.0, "frequency_hz": 8.0, "duration": 20.0, "dt": 0.5}
    ),
    "stimulus.ornstein_uhlenbeck": Call(
        stimulus.ornstein_uhlenbeck, DRAWN | {"mean": 10.0, "sd": 50.0, "tau": 5.0}, ("mean", "sd")
    ),
    "networks.train": Call(lambda **a: networks.train(_linear, **a).history, ONE_TRAINING),
    "networks.cross_entropy": Call(networks.cross_entropy, {"logits": LOGITS[0], "labels": 1}),
    "networks.accuracy": Call(networks.accuracy, {"logits": LOGITS, "labels": LABELS}),
    "networks.activity_band": Call(
        networks.activity_band,
        {"spikes": np.stack([TRAIN, OTHER], 1), "low": 2.0, "high": 20.0, "dt": 0.5},
        loose=("spikes",),
    ),
    "detect_spikes": Call(detect_spikes, {"voltage": VOLTAGE + 60.0, "dt": 0.5, "threshold": 0.0}, free=("voltage",)),
    "Recording": Call(_recording, {"current": CURRENT[None], "voltage": VOLTAGE[None], "dt": 0.5, "start": 0.0}),
    "simulate": Call(
        lambda **a: jl.simulate(jl.LIF(), **a)[1].v,
        {"params": PARAMS, "inputs": CURRENT, "checkpoint": 8, "unroll": 1},
        free=("inputs",),
    ),
    "audit_gradient": Call(
        lambda **a: jl.audit_gradient(lambda v: v.v.mean(), jl.LIF(), **a).scale,
        {"params": PARAMS, "inputs": CURRENT, "key": KEY, "noise": 0.02, "samples": 8},
        wide=("inputs",),
    ),
    "fit": Call(lambda **a: jl.fit(_parabola, **a).losses, ONE_FIT | {"tolerance": 0.0}),
    "multistart": Call(lambda **a: jl.multistart(_parabola, **a).starts, ONE_FIT | KEYED | {"num_starts": 2}),
    "coordinates": Call(
        lambda **a: coordinates(**a).to_free(a["params"]), {"params": PARAMS, "bounds": {"tau_m": (2.0, 60.0)}}
    ),
    "fit_rates": Call(
        lambda **a: jl.fit_rates(**a).scores["f_i"]["rmse"],
        {"currents": LEVELS, "rates": RATES, "membrane": PARAMS, "free_tau_m": False, "seed": 0},
    ),
    "fit_recording": Call(
        lambda **a: jl.fit_recording(**a).params.tau_m,
        {"recording": RECORDING, "model": "lif", "coupling": False, "drift": False, "rest": "auto", "seed": 0}
        | {"window": np.array([0.0, 500.0])},
    ),
    "fit_fi_population": Call(_population, {"currents": LEVELS, "rates": RATES, **PASSIVE, "v_rest": -70.0}),
    "fit_fi_population, options": Call(
        _population_options, {"adaptation": False, "noise": False, "passive": "joint", "seed": 0}
    ),
    "interop.to_nest": Call(lambda **a: jl.interop.to_nest(**a)[1], {"params": PARAMS, "dt": 0.1, "synapse": "delta"}),
    "interop.to_brian2": Call(
        lambda **a: jl.interop.to_brian2(**a).namespace, {"params": PARAMS, "dt": 0.1, "escape_noise": False}
    ),
    "plotting.trace": Call(lambda **a: _drawn(plotting.trace(**a)), {"t": np.arange(STEPS), "v": VOLTAGE}),
    "plotting.fi_curve": Call(lambda **a: _drawn(plotting.fi_curve(**a)), {"current": LEVELS, "rate": RATES}),
}


def _drawn(axes):
    lines = [np.asarray(line.get_xydata(), float) for line in axes.get_lines()]
    plt.close(axes.figure)
    return lines


# --- spoiling ---------------------------------------------------------------------------------------------

REFUSE, SAME, FREE, BATCH = "refused", "as the good call", "finite", "refused, or the good call of each"


def spoiled(value: Any, free: bool, loose: bool, wide: bool) -> dict[str, tuple[Any, str, Any]]:
    """Return by name the ways to spoil a value: what is passed, the verdict, and the good value that it stands for."""
    wrong = {"None": None, "a string": "x", "an object": object()}
    if value is None or isinstance(value, str):
        return {"a number": (3.5, REFUSE, None), "another string": ("xx", REFUSE, None), "a list": ([], REFUSE, None)}
    if isinstance(value, bool):
        return {"a string": ("x", REFUSE, None), "a number": (7.5, REFUSE, None)}
    if is_dataclass(value):
        return {"None": (None, REFUSE, None), "a dict": ({}, REFUSE, None)} | (
            _spoiled_fields(value) if hasattr(value, "check") else {}
        )
    if isinstance(value, dict | tuple) or callable(getattr(value, "update", None)) or _is_key(value) or _ragged(value):
        return {name: (x, REFUSE, None) for name, x in (wrong | {"a number": 3.5}).items()}
    ways = {name: (x, REFUSE, None) for name, x in wrong.items()}
    ways["complex"] = np.asarray(value) + 1j, REFUSE, None
    if np.ndim(value) == 0:
        return ways | _spoiled_number(value, free)
    return ways | _spoiled_array(value, free, loose, wide)


def _is_key(value):
    return isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)


def _ragged(value):
    return isinstance(value, list) and np.ndim(value[0]) > 0


def _spoiled_fields(params):
    found = {}
    for field in (f.name for f in fields(params)):
        for name, x in {"nan": np.nan, "a string": "x", "None": None, "complex": 1j, "infinite": np.inf}.items():
            found[f"{field} {name}"] = replace(params, **{field: x}), REFUSE, None
    for field in ("tau_m", "t_ref"):
        found[f"{field} negative"] = replace(params, **{field: -1.0}), REFUSE, None
    found["integers"] = replace(params, tau_m=10, v_th=-55), SAME, params
    return found


def _spoiled_number(value, free):
    ways = {"nan": (np.nan, REFUSE, None), "infinite": (np.inf, FREE, None), "negative": (-value - 1, FREE, None)}
    ways["an array of none"] = np.asarray(value), SAME, value
    ways["zero"] = type(value)(0), FREE, None
    if not free:
        ways["an array"] = np.full(3, value), REFUSE, None
    if isinstance(value, int):
        return ways | {"a fraction": (value + 0.5, REFUSE, None), "true": (True, FREE, None)}
    return ways | {"single precision": (np.float32(value), SAME, float(np.float32(value)))}


def _spoiled_array(value, free, loose, wide):
    x = np.asarray(value)
    hole = x.astype(float)
    hole.flat[x.size // 2] = np.nan
    ways = {
        "a nan": (hole, REFUSE, None),
        "a list": (x.tolist(), SAME, x),
        "integers": (x.round().astype(int), SAME, x.round().astype(float)),
        "an object array": (np.array([object()] * x.size), REFUSE, None),
        "empty": (x[:0], FREE if free or loose or wide else REFUSE, None),
        "single precision": (x.astype(np.float32), SAME, x.astype(np.float32).astype(float)),
    }
    if x.dtype.kind in "iu":
        ways["single precision"] = x.astype(np.float32), REFUSE, None
    if set(np.unique(x)) <= {0.0, 1.0}:
        ways["booleans"] = x > 0, SAME, x
    if not (free or wide):
        ways["a batch"] = np.stack([x, x, x]), BATCH, None
    if wide:
        ways["three"], ways["rank 3"] = (np.stack([x, x, x], axis=-1), BATCH, None), (x[None, :, None], REFUSE, None)
    if not free:
        ways["a column"], ways["a number"] = (x[..., None], BATCH, None), (3.5, FREE, None)
    if not (free or loose or wide):
        ways["one fewer"] = x[:-1], REFUSE, None
    return ways


# --- verdicts ---------------------------------------------------------------------------------------------


class Bad(NamedTuple):
    """One bad call: the function's name, the argument, how it is spoiled, and the verdict that it must get."""

    name: str
    argument: str
    way: str
    value: Any
    verdict: str
    stands_for: Any


def bad_calls() -> list[Bad]:
    """Return every bad call that there is."""
    found = []
    for name, call in GOOD.items():
        for argument, value in call.arguments.items():
            ways = spoiled(value, *(argument in names for names in call[2:]))
            ways = {way: rest for way, rest in ways.items() if not _is_good(name, argument, way)}
            found += [Bad(name, argument, way, *rest) for way, rest in ways.items()]
    return found


def _is_good(name: str, argument: str, way: str) -> bool:
    """Say whether a call is none of the bad ones: a default, a gap in a figure, a number that means what it says."""
    defaults = (
        "v_0",
        "budget_mb",
        "steps",
        "checkpoint",
        "coupling",
        "window",
        "mask",
        "active",
        "validation",
        "voltage",
    )
    gaps = name.startswith("plotting.") and way == "a nan"
    told = {("v_rest", "nan"), ("log_likelihood", "infinite"), ("labels", "integers")}
    return (way == "None" and argument in defaults) or gaps or (argument, way) in told


def drawn_calls(count: int) -> list[Bad]:
    """Return the first of a fixed order."""
    every = bad_calls()
    return [every[i] for i in np.random.default_rng(SEED).permutation(len(every))[:count]]


def run(name: str, **changed: Any) -> Any:
    """Call a function as a user does, whatever JAX's strictness here, without its warnings."""
    call = GOOD[name]
    standard = jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow")
    with standard[0], standard[1], warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call.function(**call.arguments | changed)


def fault(bad: Bad) -> str | None:
    """Return what is wrong with how a bad call ended, None if nothing is."""
    try:
        result = run(bad.name, **{bad.argument: bad.value})
    except (ValueError, TypeError) as error:
        return _fault_of_error(bad, error)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:150]}"
    return _fault_of_result(bad, result)


def _fault_of_error(bad, error):
    if bad.verdict == SAME and bad.way != "an array of none":
        return f"refused: {error}"[:200]
    text, frame = str(error), traceback.extract_tb(error.__traceback__)[-1]
    if "\n" in text.strip() or not text:
        return f"{len(text.splitlines())} lines: {text[:150]!r}"
    if not frame.filename.startswith(HOME):
        return f"raised outside, {Path(frame.filename).name}:{frame.lineno}: {text[:150]}"
    names = {*GOOD[bad.name].arguments, *(f.name for f in fields(PARAMS)), "cell", "spikes", "class"}
    return None if any(name in text for name in names) else f"names no argument: {text[:150]}"


def _fault_of_result(bad, result):
    leaves = [np.asarray(x) for x in jax.tree.leaves(result)]
    if bad.way == "a nan" and all(x.dtype.kind == "f" and np.isnan(x).all() for x in leaves):
        return None  # none in, none out: of a network that diverged, and every fit and training refuses it
    if bad.verdict == REFUSE:
        return f"returned {_short(result)}"
    good = [np.asarray(x) for x in jax.tree.leaves(run(bad.name))]
    if not all(np.isfinite(x).all() for x in leaves if x.dtype.kind in "fc") and all(
        np.isfinite(x).all() for x in good if x.dtype.kind in "fc"
    ):
        return f"not finite: {_short(result)}"
    if bad.verdict == FREE:
        return None
    if bad.verdict == SAME:
        good = [np.asarray(x) for x in jax.tree.leaves(run(bad.name, **{bad.argument: bad.stands_for}))]
        same = len(leaves) == len(good) and all(map(_close, leaves, good))
    else:  # each result is the good call's, or copies of it along some axis or in a list
        same = len(leaves) % len(good) == 0 and all(_copies(x, good[i % len(good)]) for i, x in enumerate(leaves))
    return None if same else f"another result: {_short(result)}"


def _copies(a, b):
    """Say whether an array is another, or holds nothing but copies of it side by side."""
    if a.size % max(b.size, 1):
        return False
    return any(_close(x, b) for x in (a, a[..., 0] if a.ndim else a, a[0] if a.ndim else a)) and bool(
        np.isclose(a.sum(dtype=float), b.sum(dtype=float) * a.size / max(b.size, 1), rtol=1e-4)
    )


def _close(a, b):
    # Single precision in, single precision out: 6e-8 a rounding, times sums over 40 steps.
    return a.shape == b.shape and (a.dtype.kind not in "fciub" or np.allclose(a, b, rtol=1e-4, atol=1e-4))


def _short(result):
    return str(result)[:100].replace("\n", " ")


TYPED = [
    name for name, call in GOOD.items() if call.function.__module__.startswith(tuple(f"jaxlif.{m}" for m in GROUND))
]


@pytest.mark.parametrize("name", TYPED)
def test_a_good_call_fits_its_signature(name):
    """Shapes and dtypes of arguments and results are those that the annotations say, by a checker of types."""
    call = GOOD[name]
    checker = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float
    jaxtyped(typechecker=checker)(call.function)(**call.arguments)


@pytest.mark.parametrize("bad", drawn_calls(CALLS // 10), ids=lambda bad: f"{bad.name}({bad.argument}={bad.way})")
def test_a_bad_call(bad):
    assert fault(bad) is None


def main() -> None:
    """Make the calls, print those that end badly, and count by function."""
    jax.config.update("jax_enable_x64", True)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else CALLS
    chosen = [bad for bad in drawn_calls(count) if not sys.argv[2:] or bad.name.startswith(tuple(sys.argv[2:]))]
    faults = {}
    for bad in chosen:
        if found := fault(bad):
            faults[f"{bad.name}({bad.argument}={bad.way})"] = found
            print(f"{bad.name}({bad.argument} = {bad.way}): {found}", flush=True)
    counts = Counter(name.partition("(")[0] for name in faults)
    print(json.dumps({"calls": len(chosen), "faults": len(faults), "by function": counts}))


if __name__ == "__main__":
    main()
