"""Checkpoints through kills, broken files and other problems."""

import random
import shutil
import sys
import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlif as jl
from jaxlif.networks import training as training_module
from jaxlif.networks import training_checkpoints
from jaxlif.networks.training import TrainingWarning
from tests.networks.training_problem import (
    LINE,
    LINE_PARAMS,
    OPTIMIZER,
    SGD,
    finish,
    fit_line,
    go,
    line_loss,
    metric,
    running,
    same,
)


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


def long(checkpoint=None):
    """Train with noise, a state of the optimiser, held-out samples and an average, in what compiles fast."""

    def loss(params, batch, key):
        return line_loss(params, batch, key) + 1e-3 * params["w"] * jax.random.normal(key)

    return fit_line(30, loss, optimizer=OPTIMIZER, validation=0.3, average=0.9, checkpoint=checkpoint)


def child(folder, out):
    """What the killed processes run."""
    result = long(folder)
    leaves = jax.tree.leaves((result.params, result.last_params, result.history))
    np.savez(out, *[np.asarray(x) for x in leaves])


def saved(folder):
    return max((int(p.name) for p in folder.glob("*") if p.name.isdigit()), default=0)


def unfinished(folder):
    return any("tmp" in p.name for p in folder.glob("*"))


def wait_until(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.0005)


def test_a_killed_training_ends_as_one_that_was_not(tmp_path):
    """At a random moment, and while a checkpoint is being written; the experiment kill_and_resume does it at length."""
    folder, out = tmp_path / "run", tmp_path / "out.npz"
    code = f"t.child({str(folder)!r}, {str(out)!r})"
    for epochs, writing in ((2, False), (9, True)):
        with running("test_training_checkpoints", code) as process:
            wait_until(lambda n=epochs: saved(folder) >= n, process)
            if writing:
                wait_until(lambda: unfinished(folder), process)
            else:
                time.sleep(random.uniform(0.0, 0.1))
        assert epochs <= saved(folder) < 30 and not out.exists()
    with running("test_training_checkpoints", code) as process:
        finish(process)
    assert not unfinished(folder)
    expected = long()
    leaves = jax.tree.leaves((expected.params, expected.last_params, expected.history))
    with np.load(out) as found:
        assert len(found.files) == len(leaves)
        for name, x in zip(found.files, leaves, strict=True):
            np.testing.assert_array_equal(found[name], x)


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
    """A file that reads well but holds other numbers than were summed up: only the checksum can tell."""
    digest = training_checkpoints._digest

    def of_other_numbers(arrays):
        return digest([x + 1 for x in arrays] if isinstance(arrays, type({}.values())) else arrays)

    folder, copy = tmp_path / "run", tmp_path / "copy"
    fit_line(2, checkpoint=folder)
    monkeypatch.setattr(training_checkpoints, "_digest", of_other_numbers)
    fit_line(3, checkpoint=copy)  # with these sums all is consistent
    shutil.copytree(copy / "3", folder / "3")
    monkeypatch.setattr(training_checkpoints, "_digest", digest)
    with pytest.warns(TrainingWarning, match=r"^checkpoint .*/3 is corrupt \(its checksum differs\); continuing from"):
        same(fit_line(4, checkpoint=folder), fit_line(4))


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
    refused(r"its values of the data is", data=LINE | {"y": LINE["y"].at[3].add(1e-9)})
    refused(r"its optimiser is", optimizer=optax.sgd(0.1000001))
    # Another name and other words, but the same is computed.
    fit_line(2, loss=lambda parameters, b, _: line_loss(parameters, b, None), checkpoint=tmp_path)


@dataclass(frozen=True)
class Shifted:
    """A line whose slope passes through a surrogate, with an option that the first batches do not show."""

    slope: float = 10.0
    ceiling: float = 1e3
    shift: float = 0.0

    def __call__(self, params, batch, key):
        spikes = jl.spike(params["w"] * batch["x"], jl.SuperSpike(self.slope))
        return line_loss(params, batch, key) + jnp.mean(spikes) + jnp.maximum(params["w"], self.ceiling) + self.shift


def test_a_sweep_shares_no_results(tmp_path):
    """What neither loss nor gradient of the first batch shows is told apart all the same, down to a constant."""
    held = {"validation": LINE, "metric": lambda p, b: -line_loss(p, b, None)}
    fit_line(1, loss=Shifted(), checkpoint=tmp_path, **held)
    for loss in (Shifted(slope=10.001), Shifted(ceiling=999.0), Shifted(shift=np.float64(1e-12))):
        with pytest.raises(ValueError, match="its loss or network is "):
            fit_line(2, loss=loss, checkpoint=tmp_path, **held)
    for words, change in {
        "values of the validation": {"validation": LINE | {"y": LINE["y"] + 1e-9}},
        "metric": {"metric": lambda p, b: -2.0 * line_loss(p, b, None)},
        "optimiser": {"optimizer": optax.sgd(0.1, momentum=0.0)},
    }.items():
        with pytest.raises(ValueError, match=f"its {words}( state)? is "):
            fit_line(2, loss=Shifted(), checkpoint=tmp_path, **held | change)
    schedules = [optax.sgd(optax.cosine_decay_schedule(0.1, steps)) for steps in (1000, 1001)]
    injected = [
        optax.inject_hyperparams(optax.sgd)(learning_rate=rate) for rate in (0.1, 0.2)
    ]  # rates are in the state
    for name, (first, second), words in (("a", schedules, "optimiser"), ("b", injected, "starting optimiser state")):
        fit_line(1, optimizer=first, checkpoint=tmp_path / name)
        with pytest.raises(ValueError, match=f"its {words} is "):
            fit_line(2, optimizer=second, checkpoint=tmp_path / name)


def test_another_version_is_said(tmp_path, monkeypatch):
    fit_line(1, checkpoint=tmp_path)
    monkeypatch.setattr(training_checkpoints, "version", lambda name: "99")
    with pytest.warns(TrainingWarning, match=r"/1 was saved by jaxlif .*, this is jaxlif 99 on .* cannot be told$"):
        same(fit_line(2, checkpoint=tmp_path), fit_line(2))


def test_an_optimiser_with_a_key_continues(tmp_path):
    noisy = optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(3)), SGD)
    fit_line(2, optimizer=noisy, checkpoint=tmp_path)
    same(fit_line(4, optimizer=noisy, checkpoint=tmp_path), fit_line(4, optimizer=noisy))


def test_checkpoints_need_orbax(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r'^checkpoint needs orbax-checkpoint: pip install "jaxlif\[snn\]"$'):
        fit_line(1, checkpoint=tmp_path)


def test_an_interrupt_saves_the_last_whole_epoch(tmp_path, monkeypatch):
    whole, calls = training_module.run_epoch, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(training_module, "run_epoch", interrupted)
    result = fit_line(5, checkpoint=tmp_path, every=5)
    assert result.message == "interrupted after 2 epochs" and not result.completed
    assert saved(tmp_path) == 2
    same(result, fit_line(2))
    same(fit_line(5, checkpoint=tmp_path), fit_line(5))
