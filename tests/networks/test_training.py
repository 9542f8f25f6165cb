"""Training against a plain Python loop, through kills and broken files, on many devices, and what it refuses."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

import jaxlif as jl
from jaxlif.networks import (
    Dense,
    Recurrent,
    Sequential,
    accuracy,
    cross_entropy,
    init_dense,
    init_recurrent,
    rate_code,
    training_checkpoints,
)
from jaxlif.networks import training as training_module
from jaxlif.networks.training import TrainingWarning, hold_out, train

ROOT = Path(__file__).resolve().parents[2]
NETWORK = Sequential((Dense(), Recurrent(jl.LIF(dt=1.0)), Dense(), jl.LeakyIntegrator(dt=1.0)))
SAMPLES, IN, N, OUT, T, B = 45, 6, 8, 3, 12, 8
BOUNDS = {"*.weight": jl.REAL, "*.bias": jl.REAL, "*.neuron.tau_m": (2.0, 100.0)}
KEY = jax.random.key(7)


def make_params():
    keys = jax.random.split(jax.random.key(1), 3)
    hidden = init_dense(keys[0], IN, N, gain=12.0), init_recurrent(keys[1], N, gain=0.5)
    return (*hidden, init_dense(keys[2], N, OUT, gain=6.0), jl.LeakyParams(tau_m=20.0))


def make_data():
    images, noise = (jax.random.uniform(key, (SAMPLES, IN)) for key in jax.random.split(jax.random.key(2)))
    return {"image": images, "label": jnp.argmax(images[:, :OUT] + 0.1 * noise[:, :OUT], axis=1)}


def logits_of(params, batch, key):
    def run(image, key):
        return jl.simulate(NETWORK, params, rate_code(key, image, T))[1]

    output = jax.vmap(run)(batch["image"], jax.random.split(key, len(batch["label"])))
    return output.output.v.mean(axis=1), output.layers[1].spikes.mean()


def loss(params, batch, key):
    logits, rate = logits_of(params, batch, key)
    return cross_entropy(logits, batch["label"]), {"rate": rate}


def metric(params, batch):
    return accuracy(logits_of(params, batch, jax.random.key(3))[0], batch["label"])


OPTIMIZER = optax.adamw(0.02)


def go(epochs=4, **options):
    options = {"optimizer": OPTIMIZER, "batch_size": B, "key": KEY} | options
    return train(loss, make_params(), BOUNDS, make_data(), epochs=epochs, **options)


# A problem without neurons where speed matters more than spikes.
LINE = {"x": jnp.linspace(-1.0, 1.0, 20), "y": 3.0 * jnp.linspace(-1.0, 1.0, 20) + 0.5}
LINE_PARAMS = {"w": jnp.asarray(0.0), "c": jnp.asarray(0.0)}
FREE = {"w": (-9.0, 9.0), "c": jl.REAL}
SGD = optax.sgd(0.1)


def line_loss(params, batch, key):
    return jnp.mean((params["w"] * batch["x"] + params["c"] - batch["y"]) ** 2)


def fit_line(epochs=3, loss=line_loss, params=LINE_PARAMS, data=LINE, **options):
    options = {"optimizer": SGD, "batch_size": 5, "key": KEY} | options
    return train(loss, params, FREE, data, epochs=epochs, **options)


def tree_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def same(a, b):
    tree_equal((a.params, a.last_params, a.history), (b.params, b.last_params, b.history))
    assert a.best_epoch == b.best_epoch


def by_hand(epochs, decay):
    """Train in Python: plain indexing and plain optax; the bounded tau_m as a logit written out here."""
    params, data = make_params(), make_data()
    hidden = params[1]
    z = {
        "rest": (params[0], params[2], hidden.weight),
        "tau_m": jnp.log(hidden.neuron.tau_m - 2.0) - jnp.log(100.0 - hidden.neuron.tau_m),
    }

    def build(z):
        neuron = jl.LIFParams(**{**vars(hidden.neuron), "tau_m": 2.0 + 98.0 / (1.0 + jnp.exp(-z["tau_m"]))})
        return z["rest"][0], type(hidden)(neuron=neuron, weight=z["rest"][2]), z["rest"][1], params[3]

    gradient = jax.jit(jax.value_and_grad(lambda z, batch, key: loss(build(z), batch, key)[0]))
    with jax.numpy_dtype_promotion("standard"):
        state = OPTIMIZER.init(z)
    every, losses = [], []
    for epoch in range(epochs):
        order = jax.random.permutation(jax.random.fold_in(KEY, epoch), SAMPLES)
        noise = jax.random.fold_in(jax.random.fold_in(KEY, 2**31), epoch)
        seen = []
        for step in range(SAMPLES // B):
            batch = jax.tree.map(lambda x, i=order[step * B : (step + 1) * B]: x[i], data)
            value, grad = gradient(z, batch, jax.random.fold_in(noise, step))
            with jax.numpy_dtype_promotion("standard"):
                updates, state = OPTIMIZER.update(grad, state, z)
                z = optax.apply_updates(z, updates)
            every.append(z)
            seen.append(float(value))
        losses.append(np.mean(seen))
    weights = decay ** np.arange(len(every))[::-1]
    mean = jax.tree.map(lambda *x: sum(w * y for w, y in zip(weights / weights.sum(), x, strict=True)), *every)
    return build(z), build(mean), losses


@pytest.fixture(scope="module")
def hand():
    return by_hand(3, 0.8)


# Equal but for the order of sums in float64; Adam divides by the root of small gradients.
ROUNDING = {"rtol": 1e-8, "atol": 1e-10}


def tree_close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **ROUNDING), a, b)


def test_it_equals_a_python_loop(hand):
    result = go(3)
    tree_close(result.params, hand[0])
    np.testing.assert_allclose(result.history["loss"], hand[2], rtol=1e-10)
    assert 0.02 < result.history["rate"].min() < result.history["rate"].max() < 0.9
    assert result.best_epoch == 2 and result.completed and result.message == "3 epochs"
    tree_equal(result.params, result.last_params)


def test_the_average_is_the_weighted_mean_of_all_points(hand):
    tree_close(go(3, average=0.8).params, hand[1])
    tree_close(go(2, average=0.0).params, go(2).params)  # another compiled program: equal to rounding


def test_it_learns():
    result = fit_line(60)
    np.testing.assert_allclose([result.params["w"], result.params["c"]], [3.0, 0.5], rtol=1e-3)
    assert result.history["loss"][-1] < 1e-4 * result.history["loss"][0]


def test_the_best_epoch_is_chosen_by_validation():
    rest, held = hold_out(make_data(), 0.3, jax.random.key(9))
    result = train(loss, make_params(), BOUNDS, rest, optimizer=OPTIMIZER, epochs=6, batch_size=B, key=KEY,
                   validation=held, metric=metric)  # fmt: skip
    scores = result.history["validation_metric"]
    assert result.best_epoch == int(np.argmax(scores))
    # The parameters kept are those of that epoch: a run that ends there has them as its last.
    ended = train(loss, make_params(), BOUNDS, rest, optimizer=OPTIMIZER, epochs=result.best_epoch + 1, batch_size=B,
                  key=KEY, validation=held, metric=metric)  # fmt: skip
    tree_equal(result.params, ended.last_params)
    # 14 held-out samples: a batch of 8 and what is left over weigh as they have samples.
    parts = [jax.tree.map(lambda x, s=s: x[s], held) for s in (slice(8), slice(8, None))]
    expected = (8 * metric(result.params, parts[0]) + 6 * metric(result.params, parts[1])) / 14
    np.testing.assert_allclose(scores[result.best_epoch], expected, rtol=1e-12)
    noise = jax.random.fold_in(KEY, 2**31 + 1)
    values = [loss(result.params, part, jax.random.fold_in(noise, i))[0] for i, part in enumerate(parts)]
    np.testing.assert_allclose(
        result.history["validation_loss"][result.best_epoch], (8 * values[0] + 6 * values[1]) / 14, rtol=1e-9
    )


def test_of_equal_epochs_the_first_is_kept():
    result = fit_line(4, validation=LINE, metric=lambda params, batch: jnp.asarray(0.5))
    assert result.best_epoch == 0
    assert not np.array_equal(result.params["w"], result.last_params["w"])
    tree_equal(result.params, fit_line(1).params)


def test_without_a_metric_the_smallest_validation_loss_wins():
    shifted = {"x": LINE["x"], "y": 0.9 * LINE["y"]}  # passed on the way, then left behind
    result = fit_line(30, validation=shifted)
    values = result.history["validation_loss"]
    assert 0 < result.best_epoch == int(np.argmin(values)) < 29
    np.testing.assert_allclose(line_loss(result.params, shifted, KEY), values.min(), rtol=1e-12)


def test_patience_ends_it():
    shifted = {"x": LINE["x"], "y": 0.9 * LINE["y"]}
    whole = fit_line(30, validation=shifted)
    result = fit_line(30, validation=shifted, patience=3)
    assert len(result.history["loss"]) == whole.best_epoch + 4
    assert result.message == f"stopped after {whole.best_epoch + 4} epochs, the last 3 without a better validation"
    assert result.completed
    tree_equal(result.params, whole.params)


def test_a_fraction_is_held_out_by_the_key():
    rest, part = hold_out(LINE, 0.25, jax.random.fold_in(KEY, 2**31 + 2))
    assert len(rest["x"]) == 15 and len(part["x"]) == 5
    np.testing.assert_array_equal(np.sort(np.concatenate([rest["x"], part["x"]])), LINE["x"])
    same(fit_line(validation=0.25), fit_line(data=rest, validation=part))


def test_an_old_style_key_gives_the_same():
    same(fit_line(), fit_line(key=jax.random.key_data(KEY)))


def test_both_precisions(dtype):
    params = jax.tree.map(lambda x: x.astype(dtype), LINE_PARAMS)
    data = jax.tree.map(lambda x: np.asarray(x, dtype), LINE)
    result = fit_line(40, params=params, data=data, validation=0.2, average=0.5)
    assert result.params["w"].dtype == dtype
    np.testing.assert_allclose(result.params["w"], 3.0, rtol=2e-2)


def test_an_epoch_compiles_once(tmp_path):
    traces = []

    def counting(params, batch, key):
        traces.append(1)
        return line_loss(params, batch, key)

    fit_line(1, loss=counting, checkpoint=tmp_path / "run")
    first = len(traces)
    fit_line(4, loss=counting, checkpoint=tmp_path / "run")
    fit_line(5, loss=counting, params=jax.tree.map(lambda x: x + 1.0, LINE_PARAMS))
    # Other epochs and other values look at nothing again.
    assert len(traces) == first


def test_an_interrupt_keeps_the_last_whole_epoch(monkeypatch):
    whole, calls = training_module.run_epoch, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(*args)

    expected = fit_line(2)
    monkeypatch.setattr(training_module, "run_epoch", interrupted)
    result = fit_line(5)
    same(result, expected)
    assert result.message == "interrupted after 2 epochs" and not result.completed


# Steps that are not finite


def spoiled(params, batch, key):
    """A loss whose gradient is not finite for batches that hold a marked sample."""
    bad = (batch["mark"] > 0).any()
    return line_loss(params, batch, key) + params["w"] * jnp.where(bad, jnp.nan, 0.0)


def marked(*samples):
    return LINE | {"mark": jnp.zeros(20).at[jnp.array(samples, int)].set(1.0)}


def test_a_step_that_is_not_finite_is_skipped():
    def without(epochs):
        params, steps = dict(LINE_PARAMS), 0
        z = {"w": jnp.log(9.0 + params["w"]) - jnp.log(9.0 - params["w"]), "c": params["c"]}
        for epoch in range(epochs):
            order = np.asarray(jax.random.permutation(jax.random.fold_in(KEY, epoch), 20)).reshape(4, 5)
            for index in order[~(order == 3).any(axis=1)]:
                batch = {name: x[index] for name, x in LINE.items()}
                grad = jax.grad(lambda z, b=batch: line_loss(build(z), b, KEY))(z)
                z, steps = {name: z[name] - 0.1 * grad[name] for name in z}, steps + 1
        return build(z), steps

    def build(z):
        return {"w": -9.0 + 18.0 / (1.0 + jnp.exp(-z["w"])), "c": z["c"]}

    result = fit_line(3, loss=spoiled, data=marked(3))
    expected, steps = without(3)
    assert steps == 9
    tree_close(result.params, expected)
    np.testing.assert_array_equal(result.history["skipped"], [1, 1, 1])
    assert np.isfinite(result.history["loss"]).all() and result.completed


def test_ten_skipped_steps_in_a_row_end_it(tmp_path):
    def late(params, batch, key):
        """Fine while w is small; then its gradient has no value, whatever the batch."""
        return line_loss(params, batch, key) + params["w"] * jnp.where(params["w"] > 1.0, jnp.nan, 0.0)

    message = (
        r"^the training stopped in epoch \d, step \d: from there 10 steps in a row were skipped, at the first the "
        r"gradient of w is not finite, loss = nan; the last good parameters are kept; try a steeper surrogate, smaller "
        r"recurrent weights, neurons with detach_reset=True, or a lower learning rate with optax.clip_by_global_norm "
        r"from the start$"
    )
    with pytest.warns(TrainingWarning, match=message):
        result = fit_line(50, loss=late, checkpoint=tmp_path / "run")
    assert not result.completed and result.message.startswith("stopped in epoch")
    epoch = int(result.message.split("epoch ")[1].split(",")[0])
    step = int(result.message.split("step ")[1].split(":")[0])
    skipped = result.history["skipped"]
    assert epoch == int(np.flatnonzero(skipped)[0]) and step == 4 - skipped[epoch]
    assert result.params["w"] > 1.0  # the step that crossed is the last good one
    # The failure is not saved, so it happens again, or with other options does not.
    last = max(int(p.name) for p in (tmp_path / "run").iterdir())
    assert last == len(skipped) - 1
    with pytest.warns(TrainingWarning, match=message):
        same(result, fit_line(50, loss=late, checkpoint=tmp_path / "run"))
    healed = fit_line(last + 3, loss=line_loss, checkpoint=tmp_path / "run")
    assert healed.completed and healed.history["skipped"][last:].tolist() == [0, 0, 0]


def test_the_first_of_several_parameters_is_named():
    def broken(params, batch, key):
        return line_loss(params, batch, key) * jnp.nan

    with pytest.warns(TrainingWarning, match=r"epoch 0, step 0.*the gradient of c \(first of 2 parameters\) is not"):
        result = fit_line(9, loss=broken)
    assert np.isnan(result.history["loss"]).all()
    tree_equal(result.params, LINE_PARAMS)
    assert len(result.history["loss"]) == 3  # ten steps of four an epoch


def test_an_infinite_loss_and_an_infinite_update_are_named():
    with pytest.warns(TrainingWarning, match="the loss is not finite, loss = inf"):
        fit_line(3, loss=lambda p, batch, key: line_loss(p, batch, key) + jnp.inf)
    overflow = optax.sgd(1e308)
    with pytest.warns(TrainingWarning, match="the optimiser's update is not finite, loss = 3"):
        result = fit_line(3, optimizer=overflow, loss=lambda p, batch, key: 3.0 + 1e9 * (p["c"] + p["w"]))
    tree_equal(result.params, LINE_PARAMS)


# Checkpoints


def full(epochs, checkpoint=None, every=1):
    return go(epochs, validation=0.3, metric=metric, average=0.9, checkpoint=checkpoint, every=every)


@pytest.mark.parametrize("every", [1, 3])
def test_continuing_equals_one_run_bitwise(tmp_path, every):
    full(4, tmp_path / "run", every)
    same(full(7, tmp_path / "run", every), full(7))
    same(full(7, tmp_path / "run", every), full(7))  # nothing left to do
    with pytest.raises(ValueError, match=r"^epochs = 5: checkpoint .*run has 7 epochs already$"):
        full(5, tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == (["6", "7"] if every == 1 else ["6", "7"])


def child(folder, out):
    """What the killed processes run."""
    result = full(30, folder)
    leaves = jax.tree.leaves((result.params, result.last_params, result.history))
    np.savez(out, *[np.asarray(x) for x in leaves])


def start(code, first="", **env):
    settings = f"import jax; jax.config.update('jax_enable_x64', True); {first}"
    settings += "from tests.networks import test_training as t; "
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"), **env}
    return subprocess.Popen([sys.executable, "-W", "error", "-c", settings + code], cwd=ROOT, env=env,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip


def finish(process, timeout=120):
    text, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, text
    return text


def wait_for(folder, epochs, process):
    end = time.monotonic() + 120
    while not any(p.name.isdigit() and int(p.name) >= epochs for p in folder.glob("*")):
        assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
        time.sleep(0.005)


def test_a_killed_training_ends_as_one_that_was_not(tmp_path):
    folder, out = tmp_path / "run", tmp_path / "out.npz"
    code = f"t.child({str(folder)!r}, {str(out)!r})"
    reached = []
    for epochs in (2, 9, 16):
        process = start(code)
        wait_for(folder, epochs, process)
        time.sleep(random.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        reached.append(max(int(p.name) for p in folder.iterdir() if p.name.isdigit()))
    assert not out.exists() and 2 <= reached[0] < reached[1] < reached[2] < 30
    finish(start(code))
    expected = full(30)
    leaves = jax.tree.leaves((expected.params, expected.last_params, expected.history))
    with np.load(out) as saved:
        assert len(saved.files) == len(leaves)
        for name, x in zip(saved.files, leaves, strict=True):
            np.testing.assert_array_equal(saved[name], x)


def damage(folder, how):
    files = [p for p in folder.rglob("*") if p.is_file()]
    if how == "emptied":
        for p in files:
            p.write_bytes(b"")
    elif how == "cut":
        largest = max(files, key=lambda p: p.stat().st_size)
        largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    elif how == "missing":
        for p in files:
            p.unlink()
    else:
        for p in files:
            p.write_bytes(bytes(b ^ 0xFF for b in p.read_bytes()))


@pytest.mark.parametrize("how", ["emptied", "cut", "missing", "flipped"])
def test_a_broken_checkpoint_falls_back_to_the_one_before(tmp_path, how):
    fit_line(3, checkpoint=tmp_path)
    damage(tmp_path / "3", how)
    with pytest.warns(TrainingWarning, match=r"^checkpoint .*/3 .*; continuing from the one before$"):
        result = fit_line(6, checkpoint=tmp_path)
    same(result, fit_line(6))
    same(fit_line(6, checkpoint=tmp_path), result)


def test_a_changed_number_is_noticed(tmp_path, monkeypatch):
    """Another number in a file that reads well: only the checksum can tell."""
    digest = training_checkpoints._digest
    monkeypatch.setattr(training_checkpoints, "_digest", lambda arrays: digest(arrays)[::-1])
    fit_line(2, checkpoint=tmp_path)
    monkeypatch.setattr(training_checkpoints, "_digest", digest)
    with pytest.raises(ValueError, match="is of another problem: its starting values"):
        fit_line(2, checkpoint=tmp_path)


def test_nothing_to_continue_from_is_an_error(tmp_path):
    fit_line(2, checkpoint=tmp_path)
    for epoch in (1, 2):
        damage(tmp_path / str(epoch), "flipped")
    with pytest.raises(ValueError, match=rf"^checkpoint {tmp_path}/2 .*; checkpoint {tmp_path}/1 .*: nothing to") as e:
        fit_line(3, checkpoint=tmp_path)
    assert "\n" not in str(e.value)


def test_the_checkpoint_of_another_problem_is_refused(tmp_path):
    fit_line(2, checkpoint=tmp_path)

    def refused(match, **options):
        with pytest.raises(ValueError, match=match) as error:
            fit_line(3, checkpoint=tmp_path, **options)
        assert "\n" not in str(error.value) and f"checkpoint {tmp_path}/2 is of another problem" in str(error.value)

    refused(r"its batch_size is 5, here it is 4; name another folder$", batch_size=4)
    refused(r"its key is .*7.*, here it is .*8", key=jax.random.key(8))
    refused(r"its data is x float64\[20\], here it is x float64\[10\]", data={n: x[:10] for n, x in LINE.items()})
    refused(r"its validation is empty, here it is x float64\[4\]", validation={n: x[:4] for n, x in LINE.items()})
    refused(r"its optimiser state is empty, here it is ", optimizer=optax.adam(0.1))
    refused(r"its average is None, here it is 0.5", average=0.5)
    refused(r"its starting values is", params=jax.tree.map(lambda x: x + 1.0, LINE_PARAMS))
    refused(r"its history is ", loss=lambda p, b, k: (line_loss(p, b, k), {"more": p["w"]}))


def test_an_optimiser_with_a_key_continues(tmp_path):
    noisy = optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(3)), SGD)
    fit_line(2, optimizer=noisy, checkpoint=tmp_path)
    same(fit_line(4, optimizer=noisy, checkpoint=tmp_path), fit_line(4, optimizer=noisy))


def test_checkpoints_need_orbax(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r'^checkpoint needs orbax-checkpoint: pip install "jaxlif\[snn\]"$'):
        fit_line(1, checkpoint=tmp_path)


def test_importing_does_not_load_orbax():
    code = "import sys, jaxlif.networks.training; sys.exit('orbax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


# Devices


def on_eight_devices():
    """Compare eight virtual devices with one; run in a process of its own."""
    mesh, shardings = jax.make_mesh((8,), ("batch",)), []

    def seen(params, batch, key):
        jax.debug.inspect_array_sharding(batch["image"], callback=lambda s: shardings.append(s.num_devices))
        return loss(params, batch, key)

    run = partial(train, params=make_params(), bounds=BOUNDS, data=make_data(), optimizer=OPTIMIZER, epochs=3,
                  batch_size=16, key=KEY, validation=0.3, metric=metric, average=0.5)  # fmt: skip
    one, eight = run(loss), run(seen, mesh=mesh)
    for name, values in one.history.items():
        np.testing.assert_allclose(eight.history[name], values, rtol=1e-6)
    tree_close(eight.params, one.params)
    assert 8 in shardings, shardings


def test_eight_devices_equal_one():
    finish(start("t.on_eight_devices()", XLA_FLAGS="--xla_force_host_platform_device_count=8"))


def in_two_processes(rank, port, folder):
    """Train over two processes with one device each; the first writes what it has."""
    mesh = Mesh(np.array(jax.devices()), ("batch",))
    assert mesh.size == 2 and jax.process_count() == 2
    result = go(3, mesh=mesh, validation=0.3, metric=metric)
    if rank == 0:
        np.savez(folder, *jax.tree.leaves((result.params, result.history)))


def test_two_processes_equal_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path / "out.npz"
    first = (
        "jax.config.update('jax_cpu_collectives_implementation', 'gloo'); "
        "jax.distributed.initialize('127.0.0.1:{port}', 2, {rank}); "
    )
    both = [
        start(f"t.in_two_processes({rank}, {port}, {str(out)!r})", first.format(port=port, rank=rank))
        for rank in (0, 1)
    ]
    try:
        for process in both:
            finish(process, timeout=60)
    finally:
        for process in both:
            process.kill()
    expected = go(3, validation=0.3, metric=metric)
    with np.load(out) as saved:
        pairs = zip(saved.files, jax.tree.leaves((expected.params, expected.history)), strict=True)
        for name, x in pairs:
            np.testing.assert_allclose(saved[name], x, **ROUNDING)


def test_one_device_in_a_mesh_equals_none():
    mesh = jax.make_mesh((1,), ("batch",))
    same(fit_line(mesh=mesh, validation=0.25), fit_line(validation=0.25))


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "^epochs = 0: epochs must be 1 or more$"),
        ({"batch_size": 0}, "^batch_size = 0: batch_size must be 1 or more$"),
        ({"batch_size": 21}, "^batch_size = 21: data has 20 samples, not enough for one batch$"),
        ({"every": 0}, "^every = 0"),
        ({"patience": 0, "validation": 0.2}, "^patience = 0"),
        ({"patience": 2}, "^patience is given without validation: patience needs held-out samples$"),
        ({"metric": lambda p, b: 0.0}, "^metric is given without validation"),
        ({"average": 1.0}, "^average = 1: the decay of the mean must be 0 or more and below 1$"),
        ({"validation": 1.5}, "^validation = 1.5 of 20 samples: both parts"),
        ({"validation": 0.01}, "^validation = 0.01 of 20 samples: both parts"),
        ({"validation": {"x": LINE["x"]}}, "^validation must be a pytree like data: their structures differ$"),
        ({"data": {"x": jnp.zeros(3), "y": jnp.zeros(4)}}, r"^data has shapes \[\(3,\), \(4,\)\]: all must be"),
        ({"key": jax.random.split(KEY, 2)}, r"^key has shape \(2,\): one key is needed$"),
        ({"loss": lambda p, b, k: b["x"] * p["w"]}, r"^the loss returned loss of shape \(5,\): it must be a scalar$"),
        (
            {"loss": lambda p, b, k: (p["w"], {"a": b["x"]})},
            r"^the loss returned auxiliary 'a' of shape \(5,\): it must be a scalar$",
        ),
        ({"loss": lambda p, b, k: (p["w"], {"loss": p["w"]})}, "^the loss returned an auxiliary 'loss': that name is"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fit_line(**options)


def test_meshes_that_do_not_fit_are_refused():
    devices = np.array(jax.devices() * 2)[:2]
    with pytest.raises(ValueError, match=r"^mesh has axes \('a', 'b'\): it must have one, that of the batch$"):
        fit_line(mesh=Mesh(devices[:1].reshape(1, 1), ("a", "b")))


def test_progress_is_shown(capsys):
    fit_line(2, progress=True, validation=0.2)
    assert "2/2" in capsys.readouterr().err
