"""Training on a function that gives the batches of an epoch, against arrays; what is refused of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlif.networks import cross_entropy
from tests.networks.training_problem import KEY, LINE, OPTIMIZER, fit_line, go, line_loss, make_data, same

HELD = jax.tree.map(np.asarray, {"x": LINE["x"][:7], "y": LINE["y"][:7] + 0.01})


def noisy(params, batch, key):
    return line_loss(params, batch, key) + 1e-3 * params["w"] * jax.random.normal(key)


def shuffled(data, batch_size):
    """Return a stream of the batches that arrays are cut into, from a generator, with what is left over at the end."""
    samples = len(next(iter(data.values())))

    def batches(epoch):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(KEY, epoch), samples))
        for first in range(0, samples, batch_size):
            yield {name: np.asarray(x)[order[first : first + batch_size]] for name, x in data.items()}

    return batches


def cut(data, batch_size):
    """Return a stream of held-out samples, in a list, the last batch shorter."""
    size = len(next(iter(data.values())))
    return lambda epoch: [{n: x[i : i + batch_size] for n, x in data.items()} for i in range(0, size, batch_size)]


OPTIONS = {"loss": noisy, "optimizer": OPTIMIZER, "average": 0.9, "batch_size": 6}


def test_a_stream_of_the_same_batches_gives_the_same_bits():
    """20 samples in batches of 6: two are left over in training; of 7 held out, one, which counts."""
    arrays = fit_line(3, validation=HELD, **OPTIONS)
    same(fit_line(3, data=shuffled(LINE, 6), validation=HELD, **OPTIONS), arrays)
    same(fit_line(3, data=shuffled(LINE, 6), validation=cut(HELD, 6), **OPTIONS), arrays)
    same(fit_line(3, validation=cut(HELD, 6), **OPTIONS), arrays)


def test_a_stream_trains_a_network_to_the_same_bits():
    same(go(2, data=shuffled(make_data(), 8)), go(2))


def test_the_checkpoint_of_another_stream_is_refused(tmp_path):
    """That one continues to the same bits is in test_checkpoints.py."""
    fit_line(1, data=shuffled(LINE, 5), folder=tmp_path)
    with pytest.raises(ValueError, match="is of another problem: its data is "):
        fit_line(2, data=shuffled(LINE | {"y": LINE["y"] + 1e-9}, 5), folder=tmp_path)


def test_one_device_in_a_mesh_equals_none():
    mesh = jax.make_mesh((1,), ("batch",))
    options = OPTIONS | {"data": shuffled(LINE, 6), "validation": cut(HELD, 6)}
    same(fit_line(2, mesh=mesh, **options), fit_line(2, **options))


def test_a_stream_is_read_one_batch_ahead_and_no_more():
    events = []

    def batches(epoch):
        for batch in shuffled(LINE, 5)(epoch):
            events.append("read")
            yield batch

    def told(params, batch, key):
        jax.debug.callback(lambda: events.append("step"))
        return line_loss(params, batch, key)

    fit_line(1, loss=told, data=batches)
    # The first one is looked at beforehand, and after the end once more.
    _, *reads, _ = [i for i, event in enumerate(events) if event == "read"]
    assert len(reads) == 4
    for place, i in enumerate(reads[2:]):
        assert events[:i].count("step") > place


def batch(size=5, **changes):
    return {"x": np.ones(size), "y": np.ones(size)} | changes


class Lazy:
    """Samples that are read when they are asked for."""

    def __len__(self):
        return 10**9

    def __getitem__(self, index):
        return np.zeros(3), 1


USED_UP = iter([batch(), batch()])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (iter([batch()]), r"^data is list_iterator: batches are given by a function of the epoch's number, lambda"),
        (Lazy(), r"^data is Lazy: batches are given by a function of the epoch's number, lambda epoch: ...$"),
        (lambda epoch: 3, r"^data\(0\) returned int: it must be an iterable of batches$"),
        (lambda epoch: [], r"^data\(0\) gave nothing: it must make an iterator anew for each epoch, with one batch at"),
        (lambda epoch: USED_UP, r"^data\(1\) gave nothing: it must make an iterator anew"),
        (lambda epoch: [batch(7)], r"^data\(0\)\[0\] has 7 samples: a batch has batch_size = 5$"),
        (lambda epoch: [batch(4)], r"^data\(0\) gave no batch of batch_size = 5 samples$"),
        (
            lambda epoch: [batch(), batch(3), batch()],
            r"^data\(0\)\[2\] comes after one of 3 samples: only the last may have fewer than others$",
        ),
        (
            lambda epoch: [batch(), batch(x=np.zeros((5, 2)))],
            r"^data\(0\)\[1\].x is float64 \[batch, 2\], in the first batch float64 \[batch\]: all must be alike$",
        ),
        (lambda epoch: [batch(), batch(x=np.zeros(5, "f4"))], r"^data\(0\)\[1\].x is float32 \[batch\], in the first"),
        (lambda epoch: [batch(), {"x": np.zeros(5)}], r"^data\(0\)\[1\] has another structure than the first batch$"),
        (lambda epoch: [batch(), batch(y=np.full(5, np.nan))], r"^data\(0\)\[1\].y\[0\] = nan: samples must be num"),
        (lambda epoch: ["a"], r"^data\(0\)\[0\] holds <U1: data\(0\)\[0\] must be arrays of numbers$"),
    ],
)
def test_what_is_no_stream_is_refused(data, message):
    with pytest.raises(ValueError, match=message) as caught:
        fit_line(2, data=data)
    assert "\n" not in str(caught.value)


def test_a_fraction_of_a_stream_is_refused():
    with pytest.raises(ValueError, match="^validation = 0.2: a fraction is cut off arrays, and data is a function$"):
        fit_line(1, data=shuffled(LINE, 5), validation=0.2)
    with pytest.raises(ValueError, match="^validation must be a pytree like data: their structures differ$"):
        fit_line(1, data=shuffled(LINE, 5), validation={"x": HELD["x"]})


def test_a_label_out_of_range_in_a_stream_is_named():
    def loss(params, batch, key):
        return cross_entropy(jnp.outer(batch["x"], jnp.stack([params["w"], params["c"], 1.0])), batch["y"])

    bad = {"x": np.asarray(LINE["x"]), "y": np.eye(20, dtype=int)[8] * 5}
    with pytest.raises(ValueError, match=r"^labels\[\d\] = 5: labels must lie between 0 and 2$"):
        fit_line(1, loss=loss, data=shuffled(bad, 5))
