"""Training against a plain Python loop, what ends it early, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlif as jl
from jaxlif.networks.training import TrainingWarning, hold_out
from tests.networks.training_problem import (
    FREE,
    KEY,
    LINE,
    LINE_PARAMS,
    OPTIMIZER,
    SAMPLES,
    B,
    fit_line,
    go,
    line_loss,
    loss,
    make_data,
    make_params,
    same,
    train,
    tree_close,
    tree_equal,
)


def by_hand(epochs, decay):
    """Train in Python: plain indexing and plain optax; the bounded tau_m as a logit written out here."""
    params, data = make_params(), jax.device_get(make_data())
    hidden = params[1]
    z = {
        "rest": (params[0], params[2], hidden.weight),
        "tau_m": jnp.log(hidden.neuron.tau_m - 2.0) - jnp.log(100.0 - hidden.neuron.tau_m),
    }

    def build(z):
        neuron = jl.LIFParams(**{**vars(hidden.neuron), "tau_m": 2.0 + 98.0 / (1.0 + jnp.exp(-z["tau_m"]))})
        return z["rest"][0], type(hidden)(neuron=neuron, weight=z["rest"][2]), z["rest"][1], params[3]

    @jax.jit
    def update(z, state, batch, key):
        value, grad = jax.value_and_grad(lambda z: loss(build(z), batch, key)[0])(z)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = OPTIMIZER.update(grad, state, z)
            return optax.apply_updates(z, updates), state, value

    with jax.numpy_dtype_promotion("standard"):
        state = OPTIMIZER.init(z)
    every, losses = [], []
    for epoch in range(epochs):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(KEY, epoch), SAMPLES))
        noise = jax.random.fold_in(jax.random.fold_in(KEY, 2**31), epoch)
        seen = []
        for step in range(SAMPLES // B):
            batch = jax.tree.map(lambda x, i=order[step * B : (step + 1) * B]: x[i], data)
            z, state, value = update(z, state, batch, jax.random.fold_in(noise, step))
            every.append(jax.device_get(z))
            seen.append(float(value))
        losses.append(np.mean(seen))
    weights = decay ** np.arange(len(every))[::-1]
    mean = jax.tree.map(lambda *x: sum(w * y for w, y in zip(weights / weights.sum(), x, strict=True)), *every)
    return build(z), build(mean), losses


@pytest.fixture(scope="module")
def hand():
    return by_hand(3, 0.8)


def test_it_equals_a_python_loop(hand):
    result = go(3)
    tree_close(result.params, hand[0])
    np.testing.assert_allclose(result.history["loss"], hand[2], rtol=1e-10)
    assert 0.02 < result.history["rate"].min() < result.history["rate"].max() < 0.9
    assert result.best_epoch == 2 and result.completed and result.message == "3 epochs"
    tree_equal(result.params, result.last_params)


def test_the_average_is_the_weighted_mean_of_all_points(hand):
    tree_close(go(3, average=0.8).params, hand[1])
    # Another compiled program: equal to rounding.
    tree_close(fit_line(2, average=0.0).params, fit_line(2).params)


def test_it_learns():
    result = fit_line(60)
    np.testing.assert_allclose([result.params["w"], result.params["c"]], [3.0, 0.5], rtol=1e-3)
    assert result.history["loss"][-1] < 1e-4 * result.history["loss"][0]


def passing(params, batch):
    """A metric that is best on the way, not at the end, and differs between samples."""
    return -jnp.mean((2.9 + 0.1 * batch["x"] - params["w"]) ** 2)


def noisy_loss(params, batch, key):
    return line_loss(params, batch, key) + 1e-3 * params["w"] * jax.random.normal(key)


def test_the_best_epoch_is_chosen_by_validation():
    held = {name: x[:7] + 0.01 for name, x in LINE.items()}
    options = {"loss": noisy_loss, "validation": held, "metric": passing}
    result = fit_line(20, **options)
    scores = result.history["validation_metric"]
    assert 0 < result.best_epoch == int(np.argmax(scores)) < 19
    # The parameters kept are those of that epoch: a run that ends there has them as its last.
    tree_equal(result.params, fit_line(result.best_epoch + 1, **options).last_params)
    # 7 held-out samples: a batch of 5 and what is left over weigh as they have samples.
    parts = [jax.tree.map(lambda x, s=s: x[s], held) for s in (slice(5), slice(5, None))]
    expected = (5 * passing(result.params, parts[0]) + 2 * passing(result.params, parts[1])) / 7
    np.testing.assert_allclose(scores[result.best_epoch], expected, rtol=1e-12)
    noise = jax.random.fold_in(KEY, 2**31 + 1)
    values = [noisy_loss(result.params, part, jax.random.fold_in(noise, i)) for i, part in enumerate(parts)]
    expected = (5 * values[0] + 2 * values[1]) / 7
    np.testing.assert_allclose(result.history["validation_loss"][result.best_epoch], expected, rtol=1e-12)


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


def test_after_a_failure_another_optimiser_continues_but_no_other_loss(tmp_path):
    """Too high a rate from the third epoch on; without a failure the optimiser must be the same."""
    wild, tame = (optax.sgd(lambda n, high=high: jnp.where(n < 8, 0.1, high)) for high in (jnp.inf, 0.05))
    fit_line(2, optimizer=wild, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="its optimiser is .*; name another folder$"):
        fit_line(5, optimizer=tame, checkpoint=tmp_path)
    with pytest.warns(TrainingWarning, match="10 steps in a row were skipped"):
        fit_line(9, optimizer=wild, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="its loss or network is .*; name another folder$"):
        fit_line(5, loss=noisy_loss, optimizer=tame, checkpoint=tmp_path)
    healed = fit_line(5, optimizer=tame, checkpoint=tmp_path)
    assert healed.completed and healed.history["skipped"].tolist() == [0, 0, 4, 4, 0]
    np.testing.assert_array_equal(healed.history["loss"][:2], fit_line(2, optimizer=wild).history["loss"])


def test_too_short_a_training_to_fail_does_not_count_as_done():
    with pytest.warns(
        TrainingWarning, match="^the training ended stuck in epoch 0, step 0: from there 8 steps in a row"
    ):
        result = fit_line(2, loss=spoiled, data=marked(*range(20)))
    assert not result.completed and result.history["skipped"].tolist() == [4, 4]


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


# What is refused


# What is no argument of its kind, each with the place where it is met.
NO_ARGUMENT = {
    "loss": ([], None, 3, "loss"),
    "bounds": (None, [("w", (0, 1))], 3),
    "optimizer": (None, "adam", 0.1, optax.adam),
    "epochs": (None, 2.5, True, np.nan, np.inf, "3"),
    "batch_size": (None, 2.5, True, "3"),
    "every": (None, 1.5),
    "patience": (1.5, np.nan, "3"),
    "average": ("0.9", np.nan, 1j, [0.5]),
    "key": (None, 3, np.arange(3), "key"),
    "metric": (3, ["loss"]),
    "record": (3, "flight_record"),
    "mesh": (3, "batch"),
    "checkpoint": (True, 3, np.zeros(2)),
    "data": ({"x": np.array(["a"]), "y": np.zeros(1)}, {"x": None}, np.array([None]), 3.0, {}),
    "validation": (True, np.inf, "0.2", {"x": LINE["x"], "y": np.array(["a"] * 20)}),
}


@pytest.mark.parametrize(("name", "bad"), [(name, bad) for name, all in NO_ARGUMENT.items() for bad in all])
def test_what_is_no_argument_is_one_line_that_names_it(name, bad):
    call = {"loss": line_loss, "bounds": FREE, "data": LINE, "optimizer": OPTIMIZER, "epochs": 1, "batch_size": 5}
    call |= {"key": KEY, "validation": 0.25, "params": LINE_PARAMS}
    with pytest.raises(ValueError, match=name) as caught:
        train(**call | {name: bad})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_what_the_functions_return_is_looked_at_before_the_first_epoch():
    """A metric of a batch, a loss of whole numbers: nothing of them is found out after hours of training."""
    for returning, message in {
        lambda p, b, k: 3: "^the loss returned int64 of shape",
        lambda p, b, k: (p["w"], p["w"], p["w"]): "^the loss returned a tuple: it must be a scalar, or",
        lambda p, b, k: (p["w"], p["c"]): "^the loss returned a tuple",
    }.items():
        with pytest.raises(ValueError, match=message):
            fit_line(loss=returning)
    with pytest.raises(ValueError, match=r"^the metric returned float64 of shape \(5,\): it must be a real scalar$"):
        fit_line(validation=0.25, metric=lambda p, b: b["x"])
    with pytest.raises(ValueError, match="^record returned int: it must return a FlightRecord$"):
        fit_line(record=lambda p, b, k: 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "^epochs = 0: epochs must be a whole number, 1 or more$"),
        ({"batch_size": 0}, "^batch_size = 0: batch_size must be a whole number, 1 or more$"),
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
        ({"loss": lambda p, b, k: b["x"] * p["w"]}, r"^the loss returned float64 of shape \(5,\): it must be a real"),
        (
            {"loss": lambda p, b, k: (p["w"], {"a": b["x"]})},
            r"^the loss, as its auxiliary 'a', returned float64 of shape \(5,\): it must",
        ),
        ({"loss": lambda p, b, k: (p["w"], {"loss": p["w"]})}, "^the loss returned an auxiliary 'loss': that name is"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fit_line(**options)


def test_progress_is_shown(capsys):
    fit_line(2, progress=True, validation=0.2)
    assert "2/2" in capsys.readouterr().err
