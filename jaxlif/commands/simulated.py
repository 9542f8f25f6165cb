"""The command that makes a recording: simulate."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import jax
import numpy as np

from jaxlif.arguments import number, stimulus_of
from jaxlif.commands import options
from jaxlif.commands.errors import clear_errors, refuse_options
from jaxlif.fitting.result import load_fit
from jaxlif.neurons.lif import LIF, LIFParams
from jaxlif.recordings import Recording
from jaxlif.simulated import simulated_recording
from jaxlif.simulation import simulate as run
from jaxlif.writing import staged_file


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The .npz recording to write.")
@click.option("--model", type=click.Choice(["lif", "hodgkin-huxley"]), default="lif", show_default=True)
@click.option("--fit", "fit_file", type=click.Path(path_type=Path), help="Take the LIF from this fit.json.")
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="A parameter of the LIF, such as tau_m=20.")
@click.option(
    "--stimulus",
    show_default="noise:200:150:5",
    help="step:AMPLITUDE:START:STOP, ramp:FROM:TO, sine:MEAN:AMPLITUDE:HZ or noise:MEAN:SD:TAU; pA, ms and Hz."
    " The Hodgkin-Huxley neuron always receives frozen noise and has noise of its own.",
)
@click.option("--duration", type=float, default=6000.0, show_default=True, help="Of a sweep, ms.")
@click.option("--dt", type=float, default=0.1, show_default=True, help="Sampling interval, ms.")
@click.option("--repeats", type=int, default=5, show_default=True, help="Sweeps of the same current.")
@options.seed
@clear_errors
def simulate(out, model, fit_file, changes, stimulus, duration, dt, repeats, seed) -> None:
    """Simulate a recording.

    Writes current, voltage, dt and, for the LIF, spikes to an .npz file that the other commands read.

    \b
    Examples:
      jaxlif simulate --model hodgkin-huxley --out cell.npz
      jaxlif simulate --set tau_m=20 --set t_ref=2 --stimulus step:250:100:900 --duration 1000 --out step.npz
    """
    if out.suffix != ".npz":
        raise ValueError(f"out = {out}: recordings are written to an .npz file")
    if repeats < 1:
        raise ValueError(f"repeats = {repeats}: at least 1 repeat is needed")
    if model == "hodgkin-huxley":
        refuse_options("of --model lif only", set=changes, fit=fit_file, stimulus=stimulus)
    with staged_file(out, fit_file) as path:
        if model == "hodgkin-huxley":
            recording = _simulated_cell(seed, repeats, duration, dt)
        else:
            neuron = _parameters(fit_file, changes)
            recording = _simulated_lif(neuron, stimulus or "noise:200:150:5", seed, repeats, duration, dt)
        arrays: dict[str, Any] = {"current": recording.current, "voltage": recording.voltage, "dt": recording.dt}
        np.savez_compressed(path, **arrays if recording.spikes is None else arrays | {"spikes": recording.spikes})
    click.echo(f"{recording}: {out}")


def _parameters(fit_file: Path | None, changes: tuple[str, ...]) -> LIFParams:
    """Return a fitted or the default neuron with "name=value" changes."""
    params = load_fit(fit_file).params if fit_file else LIFParams()
    if not isinstance(params, LIFParams):
        raise ValueError(f'fit = {fit_file}: model = "passive" is a membrane without spikes, and no LIF')
    for text in changes:
        name, _, value = text.partition("=")
        if name not in asdict(params):
            raise ValueError(f"set = {text!r}: {name!r} is no parameter; they are {', '.join(asdict(params))}")
        params = replace(params, **{name: number("set", text, value)})
    params.check()
    return params


def _simulated_cell(seed: int, repeats: int, duration: float, dt: float) -> Recording:
    with jax.enable_x64(True):
        return simulated_recording(jax.random.key(seed), repeats=repeats, duration=duration, dt=dt)


def _simulated_lif(params: LIFParams, stimulus: str, seed: int, repeats: int, duration: float, dt: float) -> Recording:
    with jax.enable_x64(True):
        current = stimulus_of(stimulus, seed, duration, dt)
        _, output = run(LIF(dt=dt), params, current)
        rows = [np.tile(np.asarray(x), (repeats, 1)) for x in (current, output.v, output.spikes > 0)]
    return Recording(current=rows[0], voltage=rows[1], spikes=rows[2], dt=dt, current_source="commanded", name="LIF")
