"""A network over many devices, and over two processes, against the same on one device: bit by bit."""

import socket
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import jaxlif as jl
from jaxlif.networks import FixedInDegree, Pairwise, Population, Probe, Projection, build, noise_drive, poisson_drive
from jaxlif.networks import run as run_network
from jaxlif.networks.sharded import divide
from jaxlif.synapses import TsodyksMarkramParams
from tests.networks.training_problem import finish, running

RECEPTORS = {"receptors": ("exc", "inh")}
CURRENTS = {"E": np.linspace(0.0, 200.0, 43) * np.ones((192, 1)), "A": 20.0}
RECORD = (Probe("E", "v", (0, 42, 20)), Probe("A", "inh"), Probe("one", "v"))


def network():
    """Sizes that eight does not divide, two kinds of neuron, everything random, parameters of each neuron's own."""
    rng = np.random.default_rng(0)

    def of(n):
        tau_syn = rng.uniform([[2.0], [8.0]], [[3.0], [12.0]], (2, n))
        neuron = jl.LIFParams(t_ref=2.0, tau_m=rng.uniform(8.0, 12.0, n))
        return jl.SynapticParams(neuron=neuron, synapse=jl.CurrentParams(tau_syn=tau_syn))

    plain = {"cell": jl.Synaptic(jl.LIF(dt=0.1), jl.ExponentialCurrent())} | RECEPTORS
    noisy = {
        "cell": jl.EscapeNoise(jl.Synaptic(jl.AdaptiveLIF(dt=0.1), jl.ExponentialCurrent())),
        "params": jl.SynapticParams(
            neuron=jl.AdaptiveLIFParams(delta_v=2.0), synapse=jl.CurrentParams(tau_syn=np.array([5.0, 10.0]))
        ),
    }
    populations = {
        "E": Population(size=43, params=of(43), v=lambda rng, n: rng.uniform(-70.0, -55.0, n), **plain),
        "A": Population(size=16, **noisy, **RECEPTORS),
        "one": Population(size=1, params=of(1), **plain),
    }

    def uniform(low, high, step=1.0):
        return lambda rng, n: step * rng.integers(low, high, n)

    tiring = TsodyksMarkramParams(use=jnp.linspace(0.2, 0.8, 43), tau_rec=50.0)
    projections = [
        Projection(source=("E", "one"), target=("E", "one"), rule=Pairwise(0.3), weight=uniform(20, 60),
                   delay=uniform(7, 20, 0.1), receptor="exc"),
        Projection(source="E", target="A", rule=FixedInDegree(9), weight=50.0, delay=1.2, receptor="exc",
                   short_term=tiring),
        Projection(source="A", target="E", rule=FixedInDegree(3), weight=-40.0, delay=0.9, receptor="inh"),
    ]  # fmt: skip
    drives = [
        poisson_drive("E", rate=4000.0, weight=np.linspace(30.0, 60.0, 43), receptor="exc"),
        noise_drive("one", mean=200.0, sd=200.0, tau=5.0),
        noise_drive("A", sd=np.linspace(10.0, 20.0, 16)),
    ]
    return build(jax.random.key(0), populations, projections, drives)


def advance(mesh=None):
    """Run 192 steps, no whole intervals of 7: three times 63, whose random numbers are drawn at once, and 3."""
    made = network()
    return made, run_network(made, 19.2, inputs=CURRENTS, record=RECORD, mesh=mesh)


def seen(activity):
    parts = activity.times, activity.neurons, activity.traces.values(), activity.state
    return [
        np.asarray(x) for part in parts for x in jax.tree.leaves(part if isinstance(part, dict | tuple) else [*part])
    ]


@cache
def on_one_device():
    activity = advance()[1]
    assert min(map(len, activity.times.values())) > 2 and len(activity.times["E"]) > 60, activity.rates
    return seen(activity)


def require_the_same(path):
    with np.load(path) as found:
        for x, expected in zip(found.values(), on_one_device(), strict=True):
            np.testing.assert_array_equal(x, expected)


def on_eight_devices(path):
    mesh = jax.make_mesh((8,), ("neurons",))
    made, activity = advance(mesh)
    np.savez(path, *seen(activity))
    over, shares = divide(made.cell, made.params, jax.jit(made.cell.prepare)(made.params), mesh)
    assert over.interval == 7, "the shortest delay"
    assert [g.sizes for g in over.local.groups] == [(6, 1), (2,)]
    placed = [np.asarray(shard.data) for shard in shares.own.weight.addressable_shards]
    assert sum(np.count_nonzero(w) for w in placed) == sum(n for _, n in made.cell.sizes)
    assert 8 * placed[0].size < 4 * made.params.table.receptor.size, "a device holds the others' synapses"


def in_two_processes(rank, path):
    assert jax.process_count() == 2
    activity = advance(Mesh(np.array(jax.devices()), ("neurons",)))[1]
    if rank == 0:
        np.savez(path, *seen(activity))


def test_eight_devices_give_the_spikes_of_one(tmp_path):
    path, flags = str(tmp_path / "seen.npz"), {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    with running("test_sharded", f"t.on_eight_devices({path!r})", **flags) as process:
        finish(process)
    require_the_same(path)


def test_two_processes_give_the_spikes_of_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    join = (
        "jax.config.update('jax_cpu_collectives_implementation', 'gloo'); "
        f"jax.distributed.initialize('127.0.0.1:{port}', 2, %d, heartbeat_timeout_seconds=300); "
    )
    path = str(tmp_path / "seen.npz")
    code = f"t.in_two_processes(%d, {path!r})"
    first, second = (running("test_sharded", code % rank, join % rank) for rank in (0, 1))
    with first as one, second as two:
        finish(one)
        finish(two)
    require_the_same(path)


def test_what_cannot_be_divided_is_refused():
    made, one = network(), jax.make_mesh((1,), ("neurons",))
    devices = np.array(jax.devices())[:1].reshape(1, 1)
    with pytest.raises(ValueError, match=r"^mesh has axes \('a', 'b'\): it must have one, that of the neurons$"):
        run_network(made, 1.0, mesh=Mesh(devices, ("a", "b")))
    with pytest.raises(ValueError, match="^input 'X': the populations are E, one, A"):
        run_network(made, 1.0, inputs={"X": np.zeros((10, 3))}, mesh=one)
    other = made._replace(params=replace(made.params, key=jax.random.key(0, impl="rbg")))
    with pytest.raises(ValueError, match="^key is one of rbg: over a mesh it must be one of threefry2x32"):
        run_network(other, 1.0, mesh=one)
