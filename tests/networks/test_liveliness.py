"""Flight records of networks whose behaviour is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.networks import (
    Dense,
    DenseParams,
    Graph,
    Recurrent,
    RecurrentParams,
    Sequential,
    flight_record,
    init_neurons,
)
from jaxlif.networks.silence import silent_layers

PLAIN = Sequential((Dense(), jl.LIF(dt=1.0)))


def test_silent_saturated_and_rate_are_counted():
    # Without refractoriness 100 rheobases make a spike in every step, 7.5 in every third, and none none.
    params = (DenseParams(weight=jnp.array([[100.0, 0.0, 0.0, 7.5]])), init_neurons(4))
    record = flight_record(PLAIN, params, jnp.ones((3, 40, 1)))
    assert record.silent.tolist() == [0.5] and record.saturated.tolist() == [0.25]
    spikes = np.asarray(jl.simulate(PLAIN, params, jnp.ones((40, 1)))[1].output.spikes)
    np.testing.assert_allclose(record.rates[0], 1000.0 * spikes.mean(axis=0), rtol=1e-6)
    assert record.rates[0][0] == 1000.0 and record.gradient_norm is None
    assert any("25% of the neurons spike in more than half" in alarm for alarm in record.alarms)


LOOP = Sequential((Dense(), Recurrent(jl.LIF(dt=1.0))))
ROTATION = jnp.array([[0.0, 1.0], [-1.0, 0.0]])  # eigenvalues i and -i


def loop_params(weight, drive=0.0):
    return (DenseParams(weight=jnp.full((1, 2), drive)), RecurrentParams(neuron=init_neurons(2), weight=weight))


def final_spikes(output):
    return output.output.spikes[:, -1].sum()


def test_where_a_gradient_overflows_is_named():
    steps = 40
    params = loop_params(1e7 * ROTATION)
    record = flight_record(LOOP, params, jnp.ones((1, steps, 1)), final_spikes)
    assert np.isfinite(record.gradient_norm).all()  # in float64
    with jax.enable_x64(False):
        single = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
        found = flight_record(LOOP, single, jnp.ones((1, steps, 1)), final_spikes)
    # Squares and products on the way may overflow a step before the norm itself does.
    last = int(np.flatnonzero(record.gradient_norm[0] > np.finfo(np.float32).max)[-1])
    step = int(found.alarms[-1].split("step ")[1].split(" ")[0])
    assert step in (last, last + 1)
    assert found.alarms[-1] == (
        f"layer 1 (Recurrent): the gradient is not finite in step {step} of 40 and before; clipping cannot mend it: "
        "take a steeper surrogate, keep detach_reset=True, or lower the recurrent gain"
    )


def test_where_an_output_breaks_is_named():
    two = Sequential((*PLAIN.layers, Dense(), jl.LIF(dt=1.0)))
    params = (
        DenseParams(weight=jnp.array([[2.0, 3.0]])),
        init_neurons(2),
        DenseParams(weight=jnp.ones((2, 2))),
        init_neurons(2),
    )
    record = flight_record(two, params, jnp.ones((2, 20, 1)).at[1, 7].set(jnp.nan))
    # The first layer's spikes are 0 where its voltage is nan, so the second one does not see it.
    assert record.broken.tolist() == [7, -1]
    assert record.alarms[0].startswith("layer 1 (LIF): its output is not finite from step 7 on: look for parameters")


def test_the_gradient_is_that_of_a_loss_linear_in_the_spikes():
    params = (DenseParams(weight=jnp.array([[2.0, 3.0]])), init_neurons(2))
    weights = jnp.arange(1.0, 21.0)

    def loss(output):
        return jnp.einsum("btn,t->", output.output.spikes, weights)

    record = flight_record(PLAIN, params, jnp.ones((3, 20, 1)), loss)
    # d loss / d s is the step's weight for each of 3 x 2 spikes: its norm is that times sqrt(6).
    np.testing.assert_allclose(record.gradient_norm[0], np.sqrt(6.0) * np.asarray(weights), rtol=1e-5)


def test_what_cannot_be_recorded_is_refused():
    params = (DenseParams(weight=jnp.ones((1, 1))), init_neurons(1))
    with pytest.raises(ValueError, match=r"inputs have shape \[5\]: a batch \[B, T, ...\] is needed"):
        flight_record(PLAIN, params, jnp.ones(5))
    with pytest.raises(ValueError, match="no layer that spikes"):
        flight_record(Sequential((Dense(),)), params[:1], jnp.ones((2, 5, 1)), dt=1.0)
    with pytest.raises(ValueError, match="dt = 2.0 ms: dt must be the network's, which is 1.0 ms"):
        flight_record(PLAIN, params, jnp.ones((2, 5, 1)), dt=2.0)


def test_hidden_layers_without_a_spike_are_named_and_readouts_are_not():
    """Of every simulation within, also below a vmap; a graph, and a network inside another."""
    weak, strong = (DenseParams(weight=jnp.full((2, 2), x)) for x in (0.1, 9.0))
    hidden = Sequential((Dense(), jl.LIF(dt=1.0)))
    graph = Graph((Dense(), jl.LIF(dt=1.0), hidden), ((-1, 0), (0, 1), (1, 2)))
    cells = init_neurons(2)

    def silent(network, *params):
        run = jax.vmap(lambda x: jl.simulate(network, params, x)[1].output)
        return silent_layers(lambda: run(jnp.ones((3, 20, 2))))

    assert silent(Sequential((hidden, Dense())), (weak, cells), weak) == ["layer 0.1 (LIF)"]
    assert silent(Sequential((hidden, Dense())), (strong, cells), weak) == []
    assert silent(graph, strong, cells, (weak, cells)) == []  # the last one may be a readout of voltages
    assert silent(graph, weak, cells, (weak, cells)) == ["layer 1 (LIF)"]
