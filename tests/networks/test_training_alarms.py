"""What a training says about networks that are silent, explode, or are fed nonsense."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.networks import cross_entropy, flight_record, rate_code
from jaxlif.networks.training import TrainingWarning
from tests.networks.training_problem import LINE, NETWORK, T, fit_line, go, line_loss, make_data, make_params


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
