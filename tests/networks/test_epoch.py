"""Training over many devices and processes against one."""

import re
import socket
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from jaxlif.fitting.bounds import coordinates
from jaxlif.networks.epoch import Fixed, Problem, run_epoch
from jaxlif.networks.epoch import start as start_state
from tests.networks.training_problem import KEY, OPTIMIZER, ROUNDING, finish, fit_line, running, same, train, tree_close

SAMPLES = 45
PLANE = {"x": jax.random.normal(jax.random.key(2), (SAMPLES, 6)), "y": jnp.linspace(0.0, 1.0, SAMPLES)}
START, FREE = {"w": jnp.ones(6)}, {"w": (-9.0, 9.0)}


def loss(params, batch, key):
    noise = 1e-3 * jax.random.normal(key, batch["y"].shape)
    return jnp.mean((batch["x"] @ params["w"] - batch["y"] + noise) ** 2), {"mean": batch["y"].mean()}


def metric(params, batch):
    return -jnp.mean(jnp.abs(batch["x"] @ params["w"] - batch["y"]))


def on_eight_devices():
    """Compare eight virtual devices with one, and look at where the samples are; run in a process of its own."""
    mesh, shardings = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,)), []

    def seen(params, batch, key):
        jax.debug.inspect_array_sharding(batch["x"], callback=lambda s: shardings.append(s.num_devices))
        return loss(params, batch, key)

    run = partial(train, params=START, bounds=FREE, data=PLANE, optimizer=OPTIMIZER, epochs=2, batch_size=16, key=KEY,
                  validation=0.3, metric=metric)  # fmt: skip
    one, eight = run(loss), run(seen, mesh=mesh)
    for name, values in one.history.items():
        np.testing.assert_allclose(eight.history[name], values, **ROUNDING)
    tree_close(eight.params, one.params)
    assert 8 in shardings, shardings
    free = coordinates(START, FREE)
    problem = Problem(loss, metric, free, OPTIMIZER, 16, SAMPLES, None, mesh, str(jax.random.key_impl(KEY)))
    placed, batches = problem.place_samples(PLANE), problem.batches(PLANE)
    for name, x in placed.items():
        # 45 samples on eight devices: six on each, the last three again the last sample.
        assert [s.data.shape[0] for s in x.addressable_shards] == [6] * 8
        np.testing.assert_array_equal(x, PLANE[name][np.minimum(np.arange(48), 44)])
        np.testing.assert_array_equal(np.concatenate([batch[name] for batch in batches]), PLANE[name])
        held = [problem.place_batch(batch)[name].addressable_shards[0].data.shape[0] for batch in batches]
        assert held == [2, 2, 13], "whole batches are split, what is left over is whole on each"
    fixed = Fixed(problem.place(START), np.asarray(jax.random.key_data(KEY)))
    arguments = fixed, placed, problem.place(start_state(problem, fixed)), np.int32(0)
    text = run_epoch.program(problem).lower(*arguments).compile().as_text()
    shapes = re.findall(r"f64\[\d+,6\]", text)
    assert "f64[6,6]" in shapes and "f64[48,6]" not in shapes, "a device holds the others' samples"


def test_eight_devices_equal_one_and_each_holds_its_samples():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    with running("test_epoch", "t.on_eight_devices()", **flags) as process:
        finish(process)


LINE_OPTIONS = {"batch_size": 4, "optimizer": OPTIMIZER, "validation": 0.2, "average": 0.9}


def in_two_processes(rank, folder):
    """Train over two processes with one device each, with a stop in between; the first writes what it has."""
    mesh = Mesh(np.array(jax.devices()), ("batch",))
    assert mesh.size == 2 and jax.process_count() == 2
    fit_line(1, mesh=mesh, folder=f"{folder}/run", **LINE_OPTIONS)
    result = fit_line(2, mesh=mesh, folder=f"{folder}/run", **LINE_OPTIONS)
    if rank == 0:
        np.savez(f"{folder}/out.npz", *jax.tree.leaves((result.params, result.history)))


def test_two_processes_equal_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # A loaded machine may let one of them wait for longer than the 100 s after which it would count as dead.
    join = (
        "jax.config.update('jax_cpu_collectives_implementation', 'gloo'); "
        f"jax.distributed.initialize('127.0.0.1:{port}', 2, %d, heartbeat_timeout_seconds=300); "
    )
    code = f"t.in_two_processes(%d, {str(tmp_path)!r})"
    flags = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    first, second = (running("test_epoch", code % rank, join % rank, **flags) for rank in (0, 1))
    with first as one, second as two:
        finish(one)
        finish(two)
    expected = fit_line(2, **LINE_OPTIONS)
    with np.load(tmp_path / "out.npz") as found:
        pairs = zip(found.files, jax.tree.leaves((expected.params, expected.history)), strict=True)
        for name, x in pairs:
            np.testing.assert_allclose(found[name], x, **ROUNDING)


def test_one_device_in_a_mesh_equals_none():
    mesh = jax.make_mesh((1,), ("batch",))
    same(fit_line(mesh=mesh, validation=0.25), fit_line(validation=0.25))


def test_meshes_that_do_not_fit_are_refused():
    devices = np.array(jax.devices() * 2)[:2]
    with pytest.raises(ValueError, match=r"^mesh has axes \('a', 'b'\): it must have one, that of the batch$"):
        fit_line(mesh=Mesh(devices[:1].reshape(1, 1), ("a", "b")))
    with pytest.raises(ValueError, match=r"^batch_size = 5: it must be a multiple of the mesh's 2 devices$"):
        fit_line(mesh=Mesh(devices, ("batch",)), batch_size=5)
