"""Training against a plain Python loop, what ends it early, what it says and what it refuses."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlif as jl
from jaxlif.networks import (
    Dense,
    DenseParams,
    Dropout,
    DropoutParams,
    Sequential,
    TrainingWarning,
    cross_entropy,
    hold_out,
    init_neurons,
)
from tests.networks.training_problem import (
    FREE,
    KEY,
    LINE,
    LINE_PARAMS,
    OPTIMIZER,
    SAMPLES,
    SGD,
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


def by_hand(epochs):
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
    losses = []
    for epoch in range(epochs):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(KEY, epoch), SAMPLES))
        noise = jax.random.fold_in(jax.random.fold_in(KEY, 2**31), epoch)
        seen = []
        for step in range(SAMPLES // B):
            batch = jax.tree.map(lambda x, i=order[step * B : (step + 1) * B]: x[i], data)
            z, state, value = update(z, state, batch, jax.random.fold_in(noise, step))
            seen.append(float(value))
        losses.append(np.mean(seen))
    return build(z), losses


def test_it_equals_a_python_loop():
    result, (expected, losses) = go(3), by_hand(3)
    tree_close(result.params, expected)
    np.testing.assert_allclose(result.history["loss"], losses, rtol=1e-10)
    assert 0.02 < result.history["rate"].min() < result.history["rate"].max() < 0.9
    assert result.best_epoch == 2 and result.completed and result.message == "3 epochs"
    tree_equal(result.params, result.last_params)


def line_by_hand(epochs, without=None, rates=None, data=LINE):
    """Return the line's free coordinates after each step of a plain loop that leaves out batches with a sample, by
    gradient descent at a rate of its own in each epoch."""
    z = {"w": jnp.log(9.0 + LINE_PARAMS["w"]) - jnp.log(9.0 - LINE_PARAMS["w"]), "c": LINE_PARAMS["c"]}
    gradient, every = jax.jit(jax.grad(lambda z, batch: line_loss(built(z), batch, KEY))), []
    for epoch in range(epochs):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(KEY, epoch), 20)).reshape(4, 5)
        for index in order[~(order == without).any(axis=1)]:
            grad = gradient(z, {name: x[index] for name, x in data.items()})
            z = {name: z[name] - (0.1 if rates is None else rates[epoch]) * grad[name] for name in z}
            every.append(z)
    return every


def built(z):
    return {"w": -9.0 + 18.0 / (1.0 + jnp.exp(-z["w"])), "c": z["c"]}


def test_the_average_is_the_weighted_mean_of_all_points():
    every = line_by_hand(2)
    weights = 0.8 ** np.arange(len(every))[::-1]
    mean = jax.tree.map(lambda *x: sum(w * y for w, y in zip(weights / weights.sum(), x, strict=True)), *every)
    tree_close(fit_line(2, average=0.8).params, built(mean))
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


def test_an_epoch_compiles_once():
    traces = []

    def counting(params, batch, key):
        traces.extend([1] * isinstance(batch["x"], jax.core.Tracer))  # in the end it is called with numbers, once
        return line_loss(params, batch, key)

    fit_line(1, loss=counting)
    first = len(traces)
    fit_line(4, loss=counting)
    fit_line(5, loss=counting, params=jax.tree.map(lambda x: x + 1.0, LINE_PARAMS))
    # Each call looks at its start, whose values have rules; other epochs and other values compile nothing again.
    assert len(traces) == first + 2


# Steps that are not finite

KEY_OF_EPOCH_0 = jax.random.fold_in(KEY, 0)


def spoiled(params, batch, key):
    """A loss whose gradient is not finite for batches that hold a marked sample."""
    bad = (batch["mark"] > 0).any()
    return line_loss(params, batch, key) + params["w"] * jnp.where(bad, jnp.nan, 0.0)


def marked(*samples):
    return LINE | {"mark": jnp.zeros(20).at[jnp.array(samples, int)].set(1.0)}


def test_a_step_that_is_not_finite_is_skipped():
    result = fit_line(3, loss=spoiled, data=marked(3))
    every = line_by_hand(3, without=3)
    assert len(every) == 9
    tree_close(result.params, built(every[-1]))
    np.testing.assert_array_equal(result.history["skipped"], [1, 1, 1])
    assert np.isfinite(result.history["loss"]).all() and result.completed


def test_an_epoch_without_a_good_step_at_its_end_is_the_last(tmp_path):
    def late(params, batch, key):
        """Fine while w is small; then its gradient has no value, whatever the batch."""
        return line_loss(params, batch, key) + params["w"] * jnp.where(params["w"] > 1.0, jnp.nan, 0.0)

    message = (
        r"^the training stopped in epoch \d: every step from epoch \d, step 0 on was skipped, where the gradient of w "
        r"is not finite, loss = nan; the last good parameters are kept; try a steeper surrogate, .* from the start$"
    )
    with pytest.warns(TrainingWarning, match=message):
        result = fit_line(50, loss=late, folder=tmp_path / "run")
    skipped = result.history["skipped"]
    assert not result.completed and result.message.startswith(f"stopped in epoch {len(skipped) - 1}:")
    assert skipped[-3:].tolist() == [4, 4, 4] and (skipped[:-4] == 0).all()
    assert result.params["w"] > 1.0  # the step that crossed is the last good one
    # The failing epoch is not saved, so it happens again.
    assert max(int(p.name) for p in (tmp_path / "run").iterdir()) == len(skipped) - 1
    with pytest.warns(TrainingWarning, match=message):
        same(result, fit_line(50, loss=late, folder=tmp_path / "run"))


def test_ten_skipped_steps_end_a_longer_epoch():
    """One sample a batch: the last ten of twenty steps, and not nine."""
    order = np.asarray(jax.random.permutation(KEY_OF_EPOCH_0, 20))
    with pytest.warns(TrainingWarning, match="stopped in epoch 0: every step from epoch 0, step 10 on was skipped"):
        assert len(fit_line(9, loss=spoiled, data=marked(*order[10:]), batch_size=1).history["loss"]) == 1
    assert fit_line(1, loss=spoiled, data=marked(*order[11:]), batch_size=1).completed


def test_a_step_alone_in_its_epoch_may_be_skipped_but_not_the_last():
    def unlucky(params, batch, key):
        return line_loss(params, batch, key) + params["w"] * jnp.where(jax.random.uniform(key) < 0.5, jnp.nan, 0.0)

    keys = [jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(KEY, 2**31), e), 0) for e in range(9)]
    bad = [bool(jax.random.uniform(key) < 0.5) for key in keys]
    last = {skipped: max(e for e in range(9) if bad[e] == skipped) + 1 for skipped in (False, True)}
    assert sum(bad) > 1
    result = fit_line(last[False], loss=unlucky, batch_size=20)
    assert result.completed and result.history["skipped"].tolist() == bad[: last[False]]
    with pytest.warns(TrainingWarning, match=f"stopped in epoch {last[True] - 1}"):
        assert not fit_line(last[True], loss=unlucky, batch_size=20).completed


def test_the_first_of_several_parameters_is_named():
    def broken(params, batch, key):
        return line_loss(params, batch, key) * jnp.nan

    with pytest.warns(TrainingWarning, match=r"from epoch 0, step 0 on .* the gradient of c \(and 1 others\) is not"):
        result = fit_line(9, loss=broken)
    assert np.isnan(result.history["loss"]).all() and len(result.history["loss"]) == 3  # ten steps of four an epoch
    tree_equal(result.params, LINE_PARAMS)


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
    "bounds": (None, {}, [("w", (0, 1))], 3),
    "optimizer": (None, "adam", 0.1, optax.adam),
    "epochs": (None, 2.5, True, np.nan, np.inf, "3"),
    "batch_size": (None, 2.5, True, "3"),
    "average": ("0.9", np.nan, 1j, [0.5]),
    "key": (None, 3, np.arange(3), "key"),
    "metric": (3, ["loss"]),
    "callback": (3, ["log"]),
    "mesh": (3, "batch"),
    "folder": (True, 3, np.zeros(2)),
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "^epochs = 0: epochs must be a whole number, 1 or more$"),
        ({"batch_size": 0}, "^batch_size = 0: batch_size must be a whole number, 1 or more$"),
        ({"batch_size": 21}, "^batch_size = 21: data has 20 samples, not enough for one batch$"),
        ({"metric": lambda p, b: 0.0}, "^metric is given without validation"),
        ({"average": 1.0}, "^average = 1: the decay of the mean must be 0 or more and below 1$"),
        ({"validation": 1.5}, "^validation = 1.5 of 20 samples: both parts"),
        ({"validation": 0.01}, "^validation = 0.01 of 20 samples: both parts"),
        ({"validation": {"x": LINE["x"][:0], "y": LINE["y"][:0]}}, "^validation of 0 samples: at least one"),
        ({"validation": {"x": LINE["x"]}}, "^validation must be a pytree like data: their structures differ$"),
        ({"data": {"x": jnp.zeros(3), "y": jnp.zeros(4)}}, r"^data of shapes \[\(3,\), \(4,\)\]: all must be"),
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


# What a training says about networks that are silent, explode, or are fed nonsense


def warned(call):
    """Return a call's result, and the texts of what it warned of."""
    with pytest.warns(TrainingWarning) as caught:
        result = call()
    return result, [str(warning.message) for warning in caught]


def silent_params():
    first, *rest = make_params()
    return (replace(first, weight=0.01 * first.weight), *rest)


def test_a_network_that_never_fires_is_said():
    result, texts = warned(lambda: go(3, params=silent_params()))
    # Without spikes neither the weights between the neurons nor those of the readout have a gradient; once said.
    assert texts == [
        "the gradient of 1.weight (and 1 others) was 0 in every step of epoch 0, so it learns nothing: no neuron of "
        "layer 1 (Recurrent) spikes in a batch: lower the learning rate, or raise the gain of the weights before "
        "(flight_record shows more)"
    ]
    assert result.message.startswith("3 epochs; no neuron of layer 1 (Recurrent) spikes in a batch: lower")
    decay = result.params[2].weight / make_params()[2].weight  # what AdamW does without any gradient
    np.testing.assert_allclose(decay, decay[0, 0], rtol=1e-12)
    assert result.completed


def test_a_learning_rate_that_kills_all_spikes_is_said_with_the_layer():
    """In an epoch in which no gradient is always 0: with a rate of 1 such a decay takes off all of each weight."""
    network = Sequential((Dense(), Sequential((jl.LIF(dt=1.0), Dense()))))
    weights = DenseParams(weight=jnp.full((1, 4), 20.0)), DenseParams(weight=jnp.full((4, 1), 0.1))
    params = weights[0], (init_neurons(4), weights[1])

    def loss(params, batch, key):
        inputs = jnp.broadcast_to(batch["x"][:, None, None] ** 2, (5, 6, 1))
        return jnp.mean(jax.vmap(lambda x: jl.simulate(network, params, x)[1].output.output)(inputs))

    decaying = optax.chain(optax.add_decayed_weights(1.0), optax.sgd(1.0))
    options = {"optimizer": decaying, "epochs": 1, "batch_size": 5, "key": KEY}
    result, texts = warned(lambda: train(loss, params, {"*.weight": jl.REAL}, LINE, **options))
    what = "1 epochs; no neuron of layer 1.0 (LIF) spikes in a batch: lower the learning rate, or raise the gain"
    assert texts == [result.message] and result.message.startswith(what) and result.completed


def test_a_loss_that_cannot_be_looked_at_costs_no_result():
    def traced_only(params, batch, key):
        if not isinstance(batch["x"], jax.core.Tracer):
            raise TypeError("it takes no numbers")
        return line_loss(params, batch, key)

    result, texts = warned(lambda: fit_line(2, loss=traced_only))
    assert texts == ["2 epochs; the loss of one batch cannot be computed outside of jit: it takes no numbers"]
    tree_equal(result.params, fit_line(2).params)


def test_a_callback_sees_each_epoch_and_may_end_the_training(tmp_path):
    seen = []

    def callback(params, history):
        seen.append((params, {name: x[-1] for name, x in history.items()}))
        return len(history["loss"]) >= 3 and history["validation_loss"][-1] < 1.0

    result = fit_line(9, validation=0.25, callback=callback, folder=tmp_path)
    assert len(seen) == len(result.history["loss"]) == 3
    assert not result.completed and result.message == "ended by the callback after 3 epochs"
    tree_equal(seen[-1][0], result.last_params)
    tree_equal(seen[-1][1], {name: x[-1] for name, x in result.history.items()})
    same(result, fit_line(3, validation=0.25))
    # Called again it ends there again.
    same(result, fit_line(9, validation=0.25, callback=callback, folder=tmp_path))
    with pytest.raises(ValueError, match="^the callback returned list: it must be None, or True to end there$"):
        fit_line(2, callback=lambda params, history: [None])


# Plateaus


PLATEAU = optax.contrib.reduce_on_plateau(factor=0.5, patience=2, cooldown=1)


@pytest.mark.parametrize("held_out", [True, False])
def test_a_plateau_sees_each_epoch_once(held_out):
    """Its scales against Optax's own, shown the recorded losses; the steps against a plain loop with these scales."""
    # Passed on the way: the validation loss falls, then rises, and the steps' own losses are above it all the time.
    data, shifted = LINE | {"y": LINE["y"] + (-1.0) ** np.arange(20)}, LINE | {"y": 0.9 * LINE["y"]}
    options = {"validation": shifted, "data": data} if held_out else {"loss": passing_loss}
    result = fit_line(12, optimizer=optax.chain(SGD, PLATEAU), **options)
    state, scales = PLATEAU.init(jnp.zeros(())), []
    with jax.numpy_dtype_promotion("standard"):
        for value in result.history["validation_loss" if held_out else "loss"]:
            state = PLATEAU.update(jnp.zeros(()), state, value=value)[1]
            scales.append(float(state.scale))
    assert len(set(scales)) > 2
    np.testing.assert_array_equal(result.history["plateau_scale"], scales)
    if held_out:
        tree_close(
            result.last_params, built(line_by_hand(12, data=data, rates=0.1 * np.array([1.0, *scales[:-1]]))[-1])
        )


def passing_loss(params, batch, key):
    """A line that is left as it is learned: its loss rises."""
    return line_loss(params, batch, key) + 0.0 * params["w"] + 10.0 * jax.lax.stop_gradient(params["w"])


def test_a_plateau_continues_from_a_checkpoint(tmp_path):
    options = {"optimizer": optax.chain(SGD, PLATEAU), "validation": LINE | {"y": 0.9 * LINE["y"]}}
    fit_line(7, folder=tmp_path, **options)
    same(fit_line(12, folder=tmp_path, **options), fit_line(12, **options))


def test_an_exploding_gradient_stops_it():
    first, hidden, *rest = silent_params()
    # Silent neurons whose surrogates pass on 1e31 times more gradient in each step back: beyond 1e308 in ten.
    params = (first, replace(hidden, weight=jnp.full_like(hidden.weight, 1e34)), *rest)
    result, texts = warned(lambda: go(3, params=params))
    assert not result.completed and texts[-1] == f"the training {result.message}"
    assert "the gradient of 0.bias (and 3 others) is not finite, loss = 1." in result.message
    jax.tree.map(np.testing.assert_array_equal, result.params, params)
    assert result.history["skipped"].tolist() == [5, 5]


@pytest.mark.parametrize("held_out", [False, True])
def test_a_label_out_of_range_is_named(held_out):
    """What is nan in the compiled program is named by the loss outside of it."""

    def loss(params, batch, key):
        return cross_entropy(jnp.outer(batch["x"], jnp.stack([params["w"], params["c"], 1.0])), batch["y"])

    data = {"x": LINE["x"], "y": jnp.zeros(20, int)}
    bad = data | {"y": data["y"].at[8].set(5)}
    with pytest.raises(ValueError, match=r"^labels\[\d\] = 5: labels must lie between 0 and 2$"):
        fit_line(1, loss=loss, **({"data": data, "validation": bad} if held_out else {"data": bad}))


def test_a_parameter_that_the_loss_does_not_use_is_named():
    def half(params, batch, key):
        return line_loss({"w": params["w"], "c": 0.0}, batch, key)

    _, texts = warned(lambda: fit_line(3, loss=half))
    assert len(texts) == 1 and texts[0].startswith("the gradient of c was 0 in every step of epoch 0, so it learns")


def negative():
    """A parameter with a rule, and a loss that pulls it below 0, where its gradient ends."""

    def loss(params, batch, key):
        return params["w"].tau_m * batch["x"].mean() + 0.0 * jnp.where(params["w"].tau_m < 0.0, jnp.nan, 1.0)

    return loss, {"w": jl.LeakyParams(tau_m=jnp.asarray(1.0))}, {"x": jnp.ones(20)}


def test_parameters_that_break_their_rule_are_kept_and_named():
    loss, params, data = negative()

    def go(bounds, params=params):
        options = {"optimizer": optax.sgd(0.4), "epochs": 9, "batch_size": 5, "key": KEY}
        return train(loss, params, bounds, data, **options)

    result, texts = warned(lambda: go({"w.tau_m": jl.REAL}))
    assert not result.completed and result.params["w"].tau_m < 0.0
    rule = "; params break a rule: tau_m = -0.2 ms: tau_m must be greater than 0 ms; bounds keep a parameter inside it"
    assert result.message.endswith("the last good parameters are kept" + rule) and result.message in texts[-1]
    assert go({"w.tau_m": (0.0, np.inf)}).completed
    with pytest.raises(ValueError, match="^tau_m = -1 ms: tau_m must be greater than 0 ms$"):
        go({"w.tau_m": jl.REAL}, {"w": jl.LeakyParams(tau_m=-1.0)})


def test_a_nan_among_the_samples_is_refused_at_the_door():
    bad = LINE | {"y": LINE["y"].at[7].set(jnp.nan)}
    with pytest.raises(ValueError, match=r"^data.y\[7\] = nan: samples must be numbers; leave it out or fill it in$"):
        fit_line(data=bad)
    with pytest.raises(ValueError, match=r"^validation.y\[7\] = nan: samples"):
        fit_line(validation=bad)
    with pytest.raises(ValueError, match=r"^data\[2, 1\] = nan: samples"):
        fit_line(data=np.array([[0.0, 1.0], [1.0, 2.0], [3.0, np.nan]]))


def test_a_validation_that_is_no_number_is_said():
    """The samples are numbers, and the loss of one is none: no epoch is the best."""
    held = LINE | {"y": LINE["y"].at[7].set(-1e200)}
    result, texts = warned(lambda: fit_line(2, validation=held, loss=lambda p, b, k: line_loss(p, b, k) ** 2))
    assert texts == ["the validation loss of epoch 0 is inf: such an epoch is never the best"]
    assert not result.completed and result.best_epoch == -1


# Random keys among the parameters


def dropped(key):
    """A line through a dropout, whose gradient shows which weights were kept, by a key of either kind."""
    network, params = Dropout(0.5), {"drop": DropoutParams(key=key), "w": jnp.ones(400), "c": jnp.asarray(0.0)}

    def loss(params, batch, key):
        kept = jl.simulate(network, params["drop"], jnp.ones((1, 400)))[1][0]
        return jnp.sum(kept * params["w"]) + params["c"] * batch["x"].mean(), {"kept": (kept > 0).mean()}

    def go(epochs, data=LINE, **options):
        options = {"optimizer": optax.sgd(1.0), "batch_size": 5, "key": KEY} | options
        return train(loss, params, {"w": jl.REAL}, data, epochs=epochs, **options)

    return go


@pytest.mark.parametrize("kind", [jax.random.key, jax.random.PRNGKey])
def test_a_dropout_drops_others_in_each_step(tmp_path, kind):
    go = dropped(kind(3))
    result = go(5, validation=LINE, metric="kept")
    # Each of 20 steps moves what it keeps by -2: the moves are binomial, and not 0 or 20 times the same.
    moves = np.round((1.0 - result.last_params["w"]) / 2.0)
    # Of 400 weights the mean and variance of binomial(20, 1/2) within five standard errors.
    assert abs(moves.mean() - 10.0) < 5 * np.sqrt(5.0 / 400) and abs(moves.var() - 5.0) < 5 * 5.0 * np.sqrt(2.0 / 400)
    np.testing.assert_array_equal(result.history["validation_metric"], 1.0)  # in validation nothing is dropped
    assert len(set(result.history["kept"])) > 1
    go(2, folder=tmp_path)
    np.testing.assert_array_equal(go(4, folder=tmp_path).last_params["w"], go(4).last_params["w"])
    np.testing.assert_array_equal(jax.random.key_data(result.params["drop"].key), jax.random.key_data(kind(3)))
    with pytest.raises(ValueError, match="its start is"):
        dropped(kind(4))(4, folder=tmp_path)


def test_the_norm_of_the_gradient_is_recorded():
    result = fit_line(1, data=jax.tree.map(lambda x: x[:5], LINE))
    # One batch, at the start w = c = 0, in the coordinates of fit: w lies between -9 and 9, so dw/dz = 18/4.
    x, y = (np.asarray(LINE[name][:5]) for name in "xy")
    expected = np.hypot(4.5 * np.mean(-2.0 * x * y), np.mean(-2.0 * y))
    np.testing.assert_allclose(result.history["gradient_norm"], [expected], rtol=1e-12)


def test_a_metric_may_be_an_auxiliary_number():
    def both(params, batch, key):
        return line_loss(params, batch, key), {"minus": -line_loss(params, batch, key)}

    result = fit_line(4, loss=both, validation=LINE, metric="minus")
    np.testing.assert_array_equal(result.history["validation_metric"], -result.history["validation_loss"])
    with pytest.raises(
        ValueError, match="^metric = 'plus': it must be an auxiliary number of the loss, which has minus"
    ):
        fit_line(1, loss=both, validation=LINE, metric="plus")
