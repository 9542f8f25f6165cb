import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl

STEPS, NEURONS = 20_000, 8
CELL, PARAMS = jl.LIF(dt=0.1), jl.LIFParams()


def objective(params, current, checkpoint):
    _, output = jl.simulate(CELL, params, current, checkpoint=checkpoint)
    return jnp.mean(output.v) + jnp.mean(output.spikes)


CURRENT = jax.ShapeDtypeStruct((STEPS, NEURONS), jnp.float32)


@pytest.fixture(autouse=True)
def single_precision():
    """The bytes below are those of 4 B numbers."""
    with jax.enable_x64(False):
        yield


def test_a_neuron_step_of_a_gradient_keeps_at_most_twelve_bytes():
    """A voltage and a counter, 4 B each; no intermediate number of the step is kept."""

    def loss(params, current, weights):
        _, output = jl.simulate(CELL, params, current)
        return jnp.sum(output.v * weights) + jnp.sum(output.spikes * weights)

    compiled = jax.jit(jax.grad(loss)).lower(PARAMS, CURRENT, CURRENT).compile()
    assert 8 * STEPS * NEURONS <= compiled.memory_analysis().temp_size_in_bytes <= 12 * STEPS * NEURONS


def test_with_the_loss_itself_come_its_outputs_and_their_cotangents():
    """Another 8 B for voltages and spikes, and 4 B for the loss's derivative with respect to one of them."""
    plan = jl.plan(objective, PARAMS, CURRENT)
    assert plan.checkpoint is None
    assert 16 * STEPS * NEURONS <= plan.temporaries <= 24 * STEPS * NEURONS


def test_the_sizes_are_the_arrays_own():
    """Arguments: the current and six scalars; outputs: the loss and six derivatives, in 8 B pointers at most."""
    plan = jl.plan(objective, PARAMS, CURRENT)
    assert 0 <= plan.arguments - (4 * STEPS * NEURONS + 6 * 4) <= 8 * 8
    assert 0 <= plan.outputs - 7 * 4 <= 8 * 8
    assert plan.total == plan.arguments + plan.outputs + plan.temporaries


def test_a_tight_budget_is_met_by_checkpoints_and_changes_no_gradient():
    free = jl.plan(objective, PARAMS, CURRENT)
    tight = jl.plan(objective, PARAMS, CURRENT, budget_mb=0.9 * free.total / 1e6)
    assert tight.checkpoint == round(STEPS**0.5) and tight.total <= 0.9 * free.total
    current = jnp.asarray(np.random.default_rng(0).normal(150.0, 200.0, (STEPS, NEURONS)), jnp.float32)
    kept, cut = (jax.grad(objective)(PARAMS, current, p.checkpoint) for p in (free, tight))
    # The same sums over time, in another order: a few hundred roundings of 6e-8.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=3e-5, atol=1e-9), kept, cut)


def test_the_inputs_of_a_batch_need_the_number_of_steps():
    def batch(params, currents, checkpoint):
        return jnp.mean(jax.vmap(lambda x: objective(params, x, checkpoint))(currents))

    inputs = jax.ShapeDtypeStruct((2, STEPS), jnp.float32)
    free = jl.plan(batch, PARAMS, inputs, steps=STEPS)
    tight = jl.plan(batch, PARAMS, inputs, steps=STEPS, budget_mb=0.9 * free.total / 1e6)
    assert tight.checkpoint == round(STEPS**0.5)


def test_a_budget_out_of_reach_names_the_least():
    with pytest.raises(ValueError, match=r"^budget_mb = 0.1 MB: the least is [\d.]+ MB, with checkpoint = \d+"):
        jl.plan(objective, PARAMS, CURRENT, budget_mb=0.1)


@pytest.mark.parametrize("budget", [0.0, -1.0, float("nan")])
def test_a_budget_is_positive(budget):
    with pytest.raises(ValueError, match="^budget_mb = .* MB: budget_mb must be "):
        jl.plan(objective, PARAMS, CURRENT, budget_mb=budget)
