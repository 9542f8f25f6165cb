"""The command line in this process, and the recordings that its tests share: one shape, so that it is compiled once."""

from functools import cache

import jax
import numpy as np
from click.testing import CliRunner

import jaxlif as jl
from jaxlif.cli import main

DT, DURATION = 0.5, 2000.0  # ms
TRUTH = jl.LIFParams(tau_m=12.0, r_m=0.12, v_rest=-68.0, v_th=-51.0, v_reset=-60.0, t_ref=3.0)
TABLES = "features_sweeps.csv", "features_cell.csv"  # beside every report of a recording
LEVELS = np.array([-50.0, 50.0, 160.0, 200.0, 250.0, 300.0, 350.0, 400.0])  # pA: two are silent, six fire


def call(*args):
    if args[0] == "fit" and "--model" not in args:  # the default fits two models where one shows what is tested
        args = ("fit", "--model", "lif", *args[1:])
    with jax.enable_x64(False):  # as a fresh process does it
        return CliRunner().invoke(main, [str(arg) for arg in args])


def good(*args):
    result = call(*args)
    assert result.exit_code == 0, result.output
    return result


def bad(*args):
    """Return the one line of a refusal."""
    result = call(*args)
    lines = result.output.strip().splitlines()
    assert result.exit_code == 2, (result.output, result.exception)
    assert len(lines) == 1 and lines[0].startswith("Error: "), lines
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)
    return lines[0]


@cache
def _simulated(seed):
    noise = jl.stimulus.ornstein_uhlenbeck(jax.random.key(seed), 180.0, 150.0, 5.0, DURATION, DT)
    _, output = jl.simulate(jl.LIF(dt=DT), TRUTH, noise)
    return np.asarray(noise), np.asarray(output.v), np.asarray(output.spikes) > 0


def cell(seed=0, drawn=20.0):
    """Return current, voltage with its spikes drawn for one step, and spikes of two trials of the true neuron."""
    noise, v, spikes = _simulated(seed)
    voltage = np.where(spikes, drawn, v)
    return np.stack([noise] * 2), np.stack([voltage, voltage + 1e-6]), np.stack([spikes] * 2)  # and no copy of a trial


def write(path, **changes):
    """Write the two trials as an .npz file with arrays changed, or None for one that is missing; return its path."""
    current, voltage, _ = cell()
    arrays = {"current": current, "voltage": voltage, "dt": DT} | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def step_family(levels=LEVELS):
    """Return current, voltage and spikes of a step of the true neuron at each level, 200 to 700 ms of 800."""
    current = np.zeros((len(levels), 1600))
    current[:, 400:1400] = levels[:, None]
    _, output = jl.simulate(jl.LIF(dt=DT), TRUTH, current.T)
    return current, np.asarray(output.v).T, np.asarray(output.spikes).T
