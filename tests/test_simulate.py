from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl


@dataclass(frozen=True)
class Sum:
    """A cell small enough to be its own oracle: it adds up a x + y over a pytree of inputs."""

    def init_state(self, params, x):
        return {"total": jnp.zeros_like(x["x"])}

    def step(self, params, state, x):
        total = state["total"] + params["a"] * x["x"] + x["y"][0]
        return {"total": total}, {"total": total, "seen": x["x"]}


@dataclass(frozen=True)
class WithScan(Sum):
    """The same cell, which says so where its own scan is used."""

    def scan(self, params, state, inputs, *, unroll=1):
        state, output = jax.lax.scan(lambda s, x: self.step(params, s, x), state, inputs)
        return state, output | {"seen": -output["seen"]}


INPUTS = {"x": jnp.arange(1.0, 8.0), "y": (jnp.full(7, 0.5),)}
PARAMS = {"a": 2.0}
TOTALS = np.cumsum(2.0 * np.arange(1.0, 8.0) + 0.5)  # exact in binary, so compared exactly


def test_a_pytree_goes_in_and_a_pytree_comes_out():
    state, output = jl.simulate(Sum(), PARAMS, INPUTS)
    np.testing.assert_array_equal(output["total"], TOTALS)
    np.testing.assert_array_equal(output["seen"], INPUTS["x"])
    assert state["total"] == TOTALS[-1]


def test_numpy_arrays_and_lists_of_leaves_are_inputs_too():
    _, output = jl.simulate(Sum(), {"a": np.float64(2.0)}, jax.tree.map(np.asarray, INPUTS))
    np.testing.assert_array_equal(output["total"], TOTALS)


def test_a_state_that_is_given_is_where_it_starts():
    state, output = jl.simulate(Sum(), PARAMS, INPUTS, {"total": jnp.asarray(100.0)})
    np.testing.assert_array_equal(output["total"], 100.0 + TOTALS)
    assert state["total"] == 100.0 + TOTALS[-1]


@pytest.mark.parametrize("checkpoint", [None, 1, 2, 3, 7, 50])
@pytest.mark.parametrize("cell, sign", [(Sum(), 1.0), (WithScan(), -1.0)])
def test_segments_cover_every_step_once(cell, sign, checkpoint):
    """Also of a cell with a scan of its own, which is then used for each segment."""
    state, output = jl.simulate(cell, PARAMS, INPUTS, checkpoint=checkpoint)
    np.testing.assert_array_equal(output["total"], TOTALS)
    np.testing.assert_array_equal(output["seen"], sign * INPUTS["x"])
    assert state["total"] == TOTALS[-1]


def test_checkpointing_keeps_fewer_numbers_for_the_backward_pass():
    """The residuals of a gradient, counted by JAX itself: about T/checkpoint states instead of T of everything."""
    current, params = jnp.full(10_000, 200.0), jl.LIFParams()

    def kept(checkpoint):
        def v(params):
            return jl.simulate(jl.LIF(), params, current, checkpoint=checkpoint)[1].v[-1]

        _, backward = jax.eval_shape(lambda p: jax.vjp(v, p), params)
        return sum(x.size for x in jax.tree.leaves(backward))

    # What stays are the states of 100 segments and the input itself.
    assert kept(100) < 0.5 * kept(None)
    assert kept(100) < 1.1 * current.size


def test_it_compiles_within_another_transformation():
    """No check, and nothing concrete needed, under jit, vmap and grad together."""

    @jax.jit
    def slopes(a):
        return jax.vmap(jax.grad(lambda a: jl.simulate(Sum(), {"a": a}, INPUTS)[1]["total"][-1]))(a)

    np.testing.assert_array_equal(slopes(jnp.array([1.0, 2.0])), [28.0, 28.0])  # the sum of x


def test_a_second_call_compiles_nothing(caplog):
    """Nor does it trace: JAX says in its log what it compiles."""
    cell = jl.LIF(dt=0.3)
    current = np.full(50, 300.0)
    jl.simulate(cell, jl.LIFParams(), current)
    with jax.log_compiles(), caplog.at_level("DEBUG", logger="jax"):
        jl.simulate(jl.LIF(dt=0.3), jl.LIFParams(tau_m=12.0), current + 1.0)  # an equal cell, made anew
        assert not caplog.messages
        jl.simulate(jl.LIF(dt=0.31), jl.LIFParams(), current)
        assert any("Compiling" in message for message in caplog.messages)  # the log does see compilations


# --------------------------------------------------------------------------------------------------------------- errors


@dataclass
class Mutable:
    init_state, step = Sum.init_state, Sum.step


@dataclass(frozen=True)
class HoldsArray(Sum):
    weight: Any


@pytest.mark.parametrize("cell", [Mutable(), HoldsArray(np.ones(2)), HoldsArray([1.0])])
def test_an_unhashable_cell_is_refused(cell):
    with pytest.raises(ValueError, match=f"cell = {type(cell).__name__}: a cell must be a frozen dataclass"):
        jl.simulate(cell, PARAMS, INPUTS)


class TwoInputs(NamedTuple):
    a: Any
    b: Any


@pytest.mark.parametrize(
    "inputs",
    [TwoInputs(np.zeros(3), np.zeros(4)), TwoInputs(np.zeros((3, 2)), np.zeros((2, 3))), TwoInputs(np.zeros(3), 1.0)]
    + [TwoInputs(None, None), 3.0],
)
def test_inputs_without_one_time_axis_are_refused(inputs):
    with pytest.raises(ValueError, match="^inputs of"):
        jl.simulate(Sum(), PARAMS, inputs)


@pytest.mark.parametrize("inputs", [np.zeros(0), np.zeros((0, 3))])
def test_no_step_is_refused(inputs):
    with pytest.raises(ValueError, match="^inputs of 0 steps: at least one is needed"):
        jl.simulate(jl.LIF(), jl.LIFParams(), inputs)


def test_the_state_of_another_cell_or_size_is_refused():
    cell, params = jl.LIF(), jl.LIFParams()
    state = jl.simulate(cell, params, np.zeros((3, 2)))[0]
    with pytest.raises(ValueError, match=r"^state = LIFState with shapes \[\(2,\), \(2,\)\]: it must be the cell's"):
        jl.simulate(cell, params, np.zeros((3, 5)), state)
    with pytest.raises(ValueError, match=r"^state = tuple with shapes \[\(\)\]: it must be the cell's"):
        jl.simulate(cell, params, np.zeros((3, 5)), (0.0,))
    for wrong in (jl.LIF, None):
        with pytest.raises(ValueError, match="a cell must be a value with a step"):
            jl.simulate(wrong, params, np.zeros(3))


@dataclass(frozen=True)
class Decay:
    """A state whose gradient is a product over the steps since it was cut off; its start is a parameter."""

    def init_state(self, params, x):
        return params["start"]

    def step(self, params, state, x):
        state = params["a"] * state + x
        return state, state


@pytest.mark.parametrize("options", [{"truncate": 4}, {"truncate": 4, "checkpoint": 3}])
def test_a_truncated_gradient_is_that_of_chunks_by_hand(options):
    """Eleven steps in chunks of four, the last one shorter; the start belongs to the first chunk."""
    params, inputs = {"a": 0.9, "start": 2.0}, np.linspace(0.5, 1.5, 11)

    def loss(params, **options):
        state, output = jl.simulate(Decay(), params, inputs, **options)
        return jnp.sum(jnp.arange(11.0) * output) + state

    state, slope, slopes = 2.0, {"a": 0.0, "start": 1.0}, []
    for n, x in enumerate(inputs):
        slope = {name: 0.0 if n and n % 4 == 0 else d for name, d in slope.items()}  # ds/da and ds/dstart
        slope = {"a": state + 0.9 * slope["a"], "start": 0.9 * slope["start"]}
        state = 0.9 * state + x
        slopes.append(slope)
    expected = {name: sum(n * d[name] for n, d in enumerate(slopes)) + slopes[-1][name] for name in params}
    found = jax.grad(loss)(params, **options)
    np.testing.assert_allclose([found[name] for name in params], [*expected.values()], rtol=1e-14)
    assert loss(params, **options) == loss(params)
    with pytest.raises(ValueError, match="^truncate = 0 steps: truncate must be a whole number, 1 or more$"):
        loss(params, truncate=0)


@pytest.mark.parametrize("checkpoint", [0, -3])
def test_segments_without_a_step_are_refused(checkpoint):
    with pytest.raises(
        ValueError, match=f"checkpoint = {checkpoint} steps: checkpoint must be a whole number, 1 or more"
    ):
        jl.simulate(jl.LIF(), jl.LIFParams(), np.zeros(3), checkpoint=checkpoint)


def test_parameters_are_checked_wherever_they_hide():
    """Every node of the pytree that has rules, here in a tuple of layers, is checked before anything is traced."""
    hidden = ({"a": 2.0}, (jl.LIFParams(), jl.LeakyParams(tau_m=0.0)))
    with pytest.raises(ValueError, match="tau_m = 0 ms: tau_m must be greater than 0 ms"):
        jl.simulate(Sum(), hidden, INPUTS)


def test_a_gradient_keeps_twelve_bytes_of_a_neuron_step_and_with_checkpoints_eight():
    """A voltage and a counter, 4 B each, and 4 B more; no other number of the step is kept."""
    array = jax.ShapeDtypeStruct((20_000, 8), jnp.float32)

    def bytes_of_a_step(checkpoint):
        def _loss(params, current):
            return jnp.mean(jl.simulate(jl.LIF(dt=0.1), params, current, checkpoint=checkpoint)[1].v)

        program = jax.jit(jax.grad(_loss)).lower(jl.LIFParams(), array).compile()
        return program.memory_analysis().temp_size_in_bytes / array.size

    with jax.enable_x64(False):
        assert 8 <= bytes_of_a_step(None) <= 12.1
        assert bytes_of_a_step(141) <= 8.2  # segments of the root of the steps


@pytest.mark.parametrize("half", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_rounded_numbers_and_no_more(half):
    """A current, parameters and a state in half precision: the run of the numbers that they stand for, bit by bit."""
    with jax.enable_x64(False):
        current = (jnp.linspace(0.0, 400.0, 2000)).astype(half)
        params = jax.tree.map(lambda x: jnp.asarray(x, half), jl.LIFParams(tau_m=10.1))
        state = jl.LIF().init_state(jl.LIFParams(v_rest=-60.0), current[0])
        state = state._replace(v=state.v.astype(half))
        found = jl.simulate(jl.LIF(), params, current, state)
        single = jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == half else x, (params, current, state))
        expected = jl.simulate(jl.LIF(), *single)
    assert expected[1].spikes.sum() > 10
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
