"""What a training says about networks that are silent, explode, or are fed nonsense."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlif as jl
from jaxlif.networks import Dropout, DropoutParams, cross_entropy, flight_record, train
from jaxlif.networks.encoders import rate_code
from jaxlif.networks.training import TrainingWarning
from tests.networks.training_problem import (
    KEY,
    LINE,
    NETWORK,
    T,
    fit_line,
    go,
    line_loss,
    make_data,
    make_params,
)


def record(params, batch, key):
    keys = jax.random.split(key, len(batch["label"]))
    spikes = jax.vmap(lambda key, image: rate_code(key, image, T))(keys, batch["image"])
    return flight_record(
        NETWORK, params, spikes, lambda output: cross_entropy(output.output.v.mean(axis=1), batch["label"])
    )


def warned(call):
    """Return a call's result, and the texts of what it warned of."""
    with pytest.warns(TrainingWarning) as caught:
        result = call()
    return result, [str(warning.message) for warning in caught]


def silent_params():
    first, *rest = make_params()
    return (replace(first, weight=0.01 * first.weight), *rest)


def test_a_network_that_never_fires_is_said_before_and_after_the_first_epoch():
    result, texts = warned(lambda: go(2, params=silent_params(), record=record))
    assert texts[0].startswith("before the first epoch: layer 1 (Recurrent): 100% of the neurons are silent: raise the")
    # Without spikes neither the weights between the neurons nor those of the readout have a gradient; once said.
    idle = [text for text in texts if "so it learns nothing" in text]
    assert idle == [
        "the gradient of 1.weight (and 1 others) was 0 in every step of epoch 0, so it learns nothing: either neurons "
        "that it depends on never spike (flight_record shows which), or the loss does not depend on it"
    ]
    decay = result.params[2].weight / make_params()[2].weight  # what AdamW does without any gradient
    np.testing.assert_allclose(decay, decay[0, 0], rtol=1e-12)
    assert result.completed and result.record.silent.tolist() == [1.0]


def test_an_exploding_gradient_is_stopped_with_the_layer_and_the_time_step():
    first, hidden, *rest = silent_params()
    # Silent neurons whose surrogates pass on 1e31 times more gradient in each step back: beyond 1e308 in ten.
    params = (first, replace(hidden, weight=jnp.full_like(hidden.weight, 1e34)), *rest)
    result, texts = warned(lambda: go(9, params=params, record=record))
    assert any(
        text.startswith("before the first epoch: layer 1 (Recurrent): the gradient is not fin") for text in texts
    )
    assert not result.completed and texts[-1] == f"the training {result.message}"
    start, where = result.message.split("; the last good parameters are kept; ")
    assert start.startswith("stopped in epoch 0, step 0: from there 10 steps in a row were skipped, at the first the ")
    assert "the gradient of 0.bias (first of 4 parameters) is not finite, loss = 1." in start
    assert where == result.record.failure
    step = int(where.removeprefix("layer 1 (Recurrent): the gradient is not finite in step ").split(" ")[0])
    assert 0 <= step < T - 1 and np.isfinite(result.record.gradient_norm[0, step + 1 :]).all()
    assert where.endswith("take a steeper surrogate, keep detach_reset=True, or lower the recurrent gain")
    jax.tree.map(np.testing.assert_array_equal, result.params, params)
    assert result.history["skipped"].sum() >= 10 and len(result.history["loss"]) < 9


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_out_of_range_is_named(label):
    data = make_data()
    data["label"] = data["label"].at[17].set(label)
    with pytest.raises(ValueError, match=rf"^labels\[\d+\] = {label}: labels must lie between 0 and 2$"):
        go(1, data=data, batch_size=45)


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
    """No recorder loses the result of a training: not even one that refuses to look at such parameters."""
    loss, params, data = negative()

    def raising(params, batch, key):
        if params["w"].tau_m < 0.0:
            raise KeyError("no such layer")
        return SimpleNamespace(alarms=())

    def go(bounds, params=params, record=None):
        options = {"optimizer": optax.sgd(0.4), "epochs": 9, "batch_size": 5, "key": KEY, "record": record}
        return train(loss, params, bounds, data, **options)

    result, texts = warned(lambda: go({"w.tau_m": jl.REAL}, record=raising))
    assert not result.completed and result.params["w"].tau_m < 0.0 and result.record is None
    rule = "; params break a rule: tau_m = -0.2 ms: tau_m must be greater than 0 ms; bounds keep a parameter inside it"
    assert result.message.endswith("the last good parameters are kept" + rule) and result.message in texts[-1]
    assert go({"w.tau_m": (0.0, np.inf)}).completed
    with pytest.raises(ValueError, match="^tau_m = -1 ms: tau_m must be greater than 0 ms$"):
        go({"w.tau_m": jl.REAL}, {"w": jl.LeakyParams(tau_m=-1.0)})


def test_a_recorder_that_fails_at_the_end_is_said():
    def late(params, batch, key):
        if params["w"] != 0.0:
            raise KeyError("no such layer")
        return SimpleNamespace(alarms=())

    result, texts = warned(lambda: fit_line(2, record=late))
    assert result.completed and result.record is None and len(result.history["loss"]) == 2
    assert result.message == "2 epochs; the recorder failed (KeyError: 'no such layer')" == texts[-1]


def test_a_nan_among_the_samples_is_refused_at_the_door():
    bad = LINE | {"y": LINE["y"].at[7].set(jnp.nan)}
    with pytest.raises(ValueError, match=r"^data.y\[7\] = nan: sample 7 must be numbers; leave it out or fill it in$"):
        fit_line(data=bad)
    with pytest.raises(ValueError, match=r"^validation.y\[7\] = nan: sample 7"):
        fit_line(validation=bad)
    with pytest.raises(ValueError, match=r"^data\[2, 1\] = nan: sample 2"):
        fit_line(data=np.array([[0.0, 1.0], [1.0, 2.0], [3.0, np.nan]]))


def test_a_validation_that_is_no_number_is_said_and_no_end_of_learning():
    """The samples are numbers, and the loss of one is none: no epoch is the best, and patience is not convergence."""
    held = LINE | {"y": LINE["y"].at[7].set(-1e200)}
    result, texts = warned(
        lambda: fit_line(9, validation=held, patience=2, loss=lambda p, b, k: line_loss(p, b, k) ** 2)
    )
    assert texts == ["the validation loss of epoch 0 is inf: such an epoch is never the best"]
    assert not result.completed and result.best_epoch == -1
    assert result.message == "stopped after 2 epochs: the validation was never a finite number"


def test_a_label_out_of_range_among_the_held_out_is_named():
    def loss(params, batch, key):
        return cross_entropy(jnp.outer(batch["x"], jnp.stack([params["w"], params["c"], 1.0])), batch["y"])

    data = {"x": LINE["x"], "y": jnp.zeros(20, int)}
    with pytest.raises(ValueError, match=r"^labels\[3\] = 5: labels must lie between 0 and 2$"):
        fit_line(1, loss=loss, data=data, validation=data | {"y": data["y"].at[8].set(5)})


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
    go(2, checkpoint=tmp_path)
    np.testing.assert_array_equal(go(4, checkpoint=tmp_path).last_params["w"], go(4).last_params["w"])
    np.testing.assert_array_equal(jax.random.key_data(result.params["drop"].key), jax.random.key_data(kind(3)))
    with pytest.raises(ValueError, match="its starting values is"):
        dropped(kind(4))(4, checkpoint=tmp_path)


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


def test_layers_that_do_not_fit_are_refused_before_anything_is_compiled():
    first, hidden, readout, leaky = make_params()
    with pytest.raises(ValueError, match=r"^layer 2 \(Dense\): weight \[7, 3\] takes an input \[7\], not \[8\]"):
        go(1, params=(first, hidden, replace(readout, weight=readout.weight[:7]), leaky))
    with pytest.raises(ValueError, match=r"^dt must be the same in all layers: layer 1 \(Recurrent\) has 1 ms, layer"):
        replace(NETWORK, layers=(*NETWORK.layers[:2], jl.LIF(dt=0.5)))
