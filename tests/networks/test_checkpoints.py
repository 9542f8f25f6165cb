"""Checkpoints through kills, broken files and other problems."""

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
from jaxlif.networks import checkpoints
from jaxlif.networks import work as work_module
from tests.networks.training_problem import (
    LINE,
    LINE_PARAMS,
    OPTIMIZER,
    SGD,
    fit_line,
    line_loss,
    running,
    same,
)


def noisy(params, batch, key):
    return line_loss(params, batch, key) + 1e-3 * params["w"] * jax.random.normal(key)


def minus(params, batch):
    return -line_loss(params, batch, None)


def long(epochs=12, folder=None, data=LINE):
    """Train with noise, a state of the optimiser, held-out samples, a metric and an average, in what compiles fast."""
    held = {"validation": {name: x[:5] for name, x in LINE.items()}, "metric": minus}
    return fit_line(epochs, noisy, data=data, optimizer=OPTIMIZER, average=0.9, folder=folder, **held)


def stream(epoch):
    """Yield an epoch's batches in an order of its own."""
    for index in np.random.default_rng(epoch).permutation(20).reshape(4, 5):
        yield {name: np.asarray(x)[index] for name, x in LINE.items()}


def test_continuing_equals_one_run_bitwise(tmp_path):
    long(2, tmp_path / "run")
    whole = long(4)
    same(long(4, tmp_path / "run"), whole)
    same(long(4, tmp_path / "run"), whole)  # nothing left to do
    with pytest.raises(ValueError, match=r"^epochs = 3: checkpoint .*run has 4 epochs already$"):
        long(3, tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["3", "4"]


def saved(folder):
    return max((int(p.name) for p in folder.glob("*") if p.name.isdigit()), default=0)


def unfinished(folder):
    return any("tmp" in p.name for p in folder.glob("*"))


def wait_until(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.0005)


def test_a_killed_training_ends_as_one_that_was_not(tmp_path):
    """While a checkpoint is being written, from a stream; experiments/kill_and_resume.py does it at any moment, with
    a network and arrays.
    """
    with running("test_checkpoints", f"t.long(folder={str(tmp_path)!r}, data=t.stream)") as process:
        wait_until(lambda: saved(tmp_path) >= 2, process)
        wait_until(lambda: unfinished(tmp_path), process)
    assert 2 <= saved(tmp_path) < 12
    same(long(folder=tmp_path, data=stream), long(data=stream))
    assert not unfinished(tmp_path)


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
def test_a_damaged_checkpoint_is_refused_and_without_it_the_one_before_is_taken(tmp_path, how):
    fit_line(2, folder=tmp_path)
    damage(tmp_path / "2", how)
    with pytest.raises(
        ValueError, match="^checkpoint .*/2 is damaged: .*; remove it to continue from the one"
    ) as error:
        fit_line(3, folder=tmp_path)
    assert "\n" not in str(error.value)
    shutil.rmtree(tmp_path / "2")
    same(fit_line(3, folder=tmp_path), fit_line(3))


def test_a_changed_number_is_noticed(tmp_path, monkeypatch):
    """A file that reads well but holds other numbers than were summed up: only the checksum can tell."""
    digest = checkpoints._digest
    monkeypatch.setattr(checkpoints, "_digest", lambda tree, text="": "0" if text[:1] == "[" else digest(tree, text))
    fit_line(2, folder=tmp_path)  # with the sums of other numbers
    monkeypatch.undo()
    with pytest.raises(ValueError, match="/2 is damaged: its checksum differs; remove it"):
        fit_line(3, folder=tmp_path)


def test_the_checkpoint_of_another_problem_is_refused(tmp_path):
    fit_line(2, folder=tmp_path)
    other = {
        "batch_size": {"batch_size": 4},
        "key": {"key": jax.random.key(8)},
        "average": {"average": 0.5},
        "bounds": {"bounds": {"w": (-9.0, 9.1), "c": jl.REAL}},
        "start": {"params": jax.tree.map(lambda x: x + 1.0, LINE_PARAMS)},
        "data": {"data": LINE | {"y": LINE["y"].at[3].add(1e-9)}},
        "validation": {"validation": {n: x[:4] for n, x in LINE.items()}},
        "loss or network": {"loss": lambda p, b, k: (line_loss(p, b, k), {"more": p["w"]})},
        "optimiser": {"optimizer": optax.sgd(0.1000001)},
    }
    for what, options in other.items():
        with pytest.raises(ValueError, match=f"is of another problem: its {what} is .*, here it is .*; name ") as error:
            fit_line(3, folder=tmp_path, **options)
        assert "\n" not in str(error.value) and f"checkpoint {tmp_path}/2" in str(error.value)
    # Another name and other words, but the same is computed.
    fit_line(2, loss=lambda parameters, b, _: line_loss(parameters, b, None), folder=tmp_path)


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
    held = {"validation": LINE, "metric": minus}
    fit_line(1, loss=Shifted(), folder=tmp_path, **held)
    for loss in (Shifted(slope=10.001), Shifted(ceiling=999.0), Shifted(shift=np.float64(1e-12))):
        with pytest.raises(ValueError, match="its loss or network is "):
            fit_line(2, loss=loss, folder=tmp_path, **held)
    for words, change in {
        "validation": {"validation": LINE | {"y": LINE["y"] + 1e-9}},
        "metric": {"metric": lambda p, b: -2.0 * line_loss(p, b, None)},
        "optimiser": {"optimizer": optax.sgd(0.1, momentum=0.0)},
    }.items():
        with pytest.raises(ValueError, match=f"its {words} is "):
            fit_line(2, loss=Shifted(), folder=tmp_path, **held | change)
    schedules = [optax.sgd(optax.cosine_decay_schedule(0.1, steps)) for steps in (1000, 1001)]
    injected = [
        optax.inject_hyperparams(optax.sgd)(learning_rate=rate) for rate in (0.1, 0.2)
    ]  # rates are in the state
    for name, (first, second) in {"a": schedules, "b": injected}.items():
        fit_line(1, optimizer=first, folder=tmp_path / name)
        with pytest.raises(ValueError, match="its optimiser is "):
            fit_line(2, optimizer=second, folder=tmp_path / name)


def test_another_version_is_refused(tmp_path, monkeypatch):
    fit_line(1, folder=tmp_path)
    monkeypatch.setattr(checkpoints, "version", lambda name: "99")
    with pytest.raises(ValueError, match="/1 is of another problem: its software is .*, here it is jaxlif 99"):
        fit_line(2, folder=tmp_path)


def test_an_optimiser_with_a_key_continues(tmp_path):
    noisy = optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(3)), SGD)
    fit_line(2, optimizer=noisy, folder=tmp_path)
    same(fit_line(4, optimizer=noisy, folder=tmp_path), fit_line(4, optimizer=noisy))


def test_checkpoints_need_orbax(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r'^folder needs orbax-checkpoint: pip install "jaxlif\[snn\]"$'):
        fit_line(1, folder=tmp_path)


def test_an_interrupt_saves_the_last_whole_epoch(tmp_path, monkeypatch):
    whole, calls = work_module.run_epoch, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(work_module, "run_epoch", interrupted)
    result = fit_line(5, folder=tmp_path)
    assert result.message == "interrupted after 2 epochs" and not result.completed
    assert saved(tmp_path) == 2
    same(result, fit_line(2))
    same(fit_line(5, folder=tmp_path), fit_line(5))
