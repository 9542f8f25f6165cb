"""The scripts in NEST and Brian2 themselves, where experiments/peers_nest_brian2.sh has installed them."""

import json
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.interop import to_brian2, to_nest, to_script

PEERS = Path(__file__).resolve().parents[2] / ".cache" / "peers"
DT = 0.1
CURRENT = np.random.default_rng(8).normal(180.0, 250.0, 10_000)
ADAPTIVE = jl.AdaptiveLIFParams(
    t_ref=2.0, eta=(40.0,), tau_eta=(60.0,), gamma=(3.0,), tau_gamma=(30.0,), delta_v=2.0, lambda_0=0.5
)
FULL = jl.AdaptiveLIFParams(
    **vars(ADAPTIVE)
    | {"a": (1.0,), "tau_a": (120.0,), "coupling": jl.VoltageCoupling(b=0.4, v_i=-62.0)}
    | {"mechanisms": (jl.MembraneCurrent(a=3.0, tau=30.0, v_i=-60.0), jl.MembraneCurrent(a=-0.5, tau=5.0, v_i=-72.0))}
)


def run(peer, script):
    if not (PEERS / peer / ".ready").is_file():
        pytest.skip(f"{peer} is not installed: experiments/peers_nest_brian2.sh installs it")
    python = str(PEERS / peer / "bin" / "python")
    done = subprocess.run([python, "-"], input=script, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def expected(cell, params):
    _, output = jl.simulate(cell, params, CURRENT)
    return jl.spiketrains.spike_times(output.spikes, DT)


@pytest.mark.parametrize("synapse", ["delta", "exp"])
@pytest.mark.parametrize("t_ref", [0.0, 2.05])
def test_nest_spikes_with_the_plain_neuron(synapse, t_ref):
    params = jl.LIFParams(t_ref=t_ref)
    found = run("nest", to_script(to_nest(params, synapse=synapse), CURRENT))
    np.testing.assert_allclose(found["times"], expected(jl.LIF(dt=DT), params), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "cell, params",
    [
        (jl.LIF(dt=DT), jl.LIFParams(t_ref=0.0)),
        (jl.LIF(dt=DT), jl.LIFParams(t_ref=2.05)),
        (jl.AdaptiveLIF(dt=DT), FULL),
        (jl.AdaptiveLIF(dt=DT), jl.AdaptiveLIFParams(mechanisms=(jl.MembraneCurrent(a=1.0), jl.ACurrent(g=6.0)))),
    ],
)
def test_brian2_spikes_with_the_neuron(cell, params):
    found = run("brian2", to_script(to_brian2(params), CURRENT))
    np.testing.assert_allclose(found["times"], expected(cell, params), rtol=0, atol=1e-6)


@pytest.mark.parametrize("peer, export", [("nest", to_nest), ("brian2", to_brian2)])
def test_no_step_is_lost_at_either_end(peer, export):
    """A neuron that spikes in every step does so in the first and in the last, and at their ends."""
    params = jl.LIFParams(t_ref=0.0, v_reset=-56.0)
    found = run(peer, to_script(export(params), np.full(7, 1e5)))
    np.testing.assert_allclose(found["times"], DT * np.arange(1, 8), rtol=0, atol=1e-9)


@pytest.mark.parametrize("peer", ["nest", "brian2"])
def test_the_noisy_neuron_has_the_same_rate(peer):
    """100 neurons each of about 50 spikes: means that differ by less than four standard errors."""
    model = to_nest(ADAPTIVE) if peer == "nest" else to_brian2(ADAPTIVE, escape_noise=True)
    theirs = np.bincount(run(peer, to_script(model, CURRENT, neurons=100))["neurons"], minlength=100)
    inputs = jl.escape_inputs(jax.random.key(1), np.repeat(CURRENT[:, None], 100, axis=1))
    _, output = jl.simulate(jl.EscapeNoise(jl.AdaptiveLIF(dt=DT)), ADAPTIVE, inputs)
    ours = np.asarray(output.spikes).sum(axis=0)
    error = np.sqrt((theirs.var() + ours.var()) / 100)
    assert ours.mean() > 20
    assert abs(theirs.mean() - ours.mean()) < 4.0 * error
