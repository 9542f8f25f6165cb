import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.fitting.bounds import REAL, Interval, coordinates, named_leaves

INTERVALS = [
    Interval(2.0, 60.0),
    Interval(-90.0, -40.0),
    Interval(0.0, math.inf),
    Interval(-5.0, math.inf),
    Interval(-math.inf, 0.0),
    Interval(-math.inf, -50.0),
    Interval(*REAL),
]
every_interval = pytest.mark.parametrize("interval", INTERVALS, ids=str)


def plain_to_value(interval, z):
    """Give the inverse map in plain numbers: solve the documented equation for x."""
    a, b = interval.low, interval.high
    if math.isinf(a) and math.isinf(b):
        return z
    if math.isinf(b):
        return a + math.exp(z)
    if math.isinf(a):
        return b - math.exp(-z)
    return (a + b * math.exp(z)) / (1.0 + math.exp(z))


# ------------------------------------------------------------------------------------------------------------- the maps


@every_interval
def test_the_map_is_the_documented_one_and_a_bijection(dtype, interval):
    z = jnp.linspace(-6.0, 6.0, 49, dtype=dtype)
    x = interval.to_value(z)
    assert x.dtype == dtype
    # 60 mV carries a rounding of 4e-15 or 4e-6; towards an end exp(6) = 400 times that comes back in z.
    eps = {"float64": 1e-14, "float32": 8e-6}[dtype]
    np.testing.assert_allclose(x, [plain_to_value(interval, float(value)) for value in z], rtol=0, atol=10 * eps)
    assert ((x > interval.low) & (x < interval.high)).all() and (jnp.diff(x) > 0).all()
    np.testing.assert_allclose(interval.to_free(x), z, rtol=0, atol=1e3 * eps)


@pytest.mark.parametrize("interval, middle", [(INTERVALS[0], 31.0), (INTERVALS[2], 1.0), (INTERVALS[4], -1.0)])
def test_the_middle_is_zero_exactly(interval, middle):
    assert interval.to_free(jnp.asarray(middle)) == 0.0
    assert interval.to_value(jnp.asarray(0.0)) == middle


@every_interval
def test_far_out_it_ends_at_the_bounds_exactly(dtype, interval):
    """Where the logit saturates the value is the end itself: neither beyond it nor NaN."""
    low, high = interval.to_value(jnp.asarray([-1000.0, 1000.0], dtype))
    if interval == Interval(*REAL):
        assert (low, high) == (-1000.0, 1000.0)
    else:
        assert (low, high) == (interval.low, interval.high)


@pytest.mark.parametrize("low, high", [(0.1, 0.3), (0.001, 0.7), (-0.3, 0.1), (1e-3, 1e3), (-70.1, -39.7), (0.05, 5.0)])
def test_rounding_does_not_step_over_a_bound(dtype, low, high):
    """low + (high - low) itself may round above high."""
    x = Interval(low, high).to_value(jnp.asarray([-800.0, -40.0, 0.0, 15.0, 37.0, 800.0], dtype))
    assert (x >= jnp.asarray(low, dtype)).all() and (x <= jnp.asarray(high, dtype)).all()


@every_interval
@pytest.mark.parametrize("z", [-30.0, -12.0, 0.0, 12.0, 30.0])
def test_the_gradient_near_a_bound_is_small_but_alive(dtype, interval, z):
    """No clip: the slope is the documented map's, and not 0, even where the value has rounded to the bound."""
    a, b = interval.low, interval.high
    if math.isinf(a) and math.isinf(b):
        expected = 1.0
    elif math.isinf(a) or math.isinf(b):
        expected = math.exp(-z if math.isinf(a) else z)
    else:
        expected = (b - a) * math.exp(-abs(z)) / (1.0 + math.exp(-abs(z))) ** 2
    slope = jax.grad(interval.to_value)(jnp.asarray(z, dtype))
    # exp(30) in single precision: a rounding of its argument is 30 roundings of the result.
    np.testing.assert_allclose(slope, expected, rtol={"float64": 1e-13, "float32": 1e-5}[dtype])


# --------------------------------------------------------------------------------------------------------- coordinates

NETWORK = (
    {"weight": jnp.ones((2, 2)), "neuron": jl.LIFParams(tau_m=jnp.array([10.0, 20.0]))},
    jl.SynapticParams(neuron=jl.LIFParams(), synapse=jl.CurrentParams(tau_syn=3.0)),
)


def names(params, bounds):
    return [name for name, _ in coordinates(params, bounds).free]


def test_leaves_have_dotted_names():
    assert list(named_leaves(jl.LIFParams())) == ["tau_m", "r_m", "v_rest", "v_th", "v_reset", "t_ref"]
    assert list(named_leaves(NETWORK))[0] == "0.neuron.tau_m"
    assert list(named_leaves(NETWORK))[-2:] == ["1.neuron.t_ref", "1.synapse.tau_syn"]


def test_a_round_trip_moves_the_free_and_returns_the_fixed_untouched():
    params = jl.LIFParams(tau_m=np.array([3.0, 50.0]), r_m=np.float32(0.3))
    c = coordinates(params, {"tau_m": (2.0, 60.0), "v_rest": REAL, "v_th": (-math.inf, 0.0)})
    free = c.to_free(params)
    assert list(free) == ["tau_m", "v_rest", "v_th"]
    back = c.to_params(free, params)
    np.testing.assert_allclose(back.tau_m, [3.0, 50.0], rtol=1e-14)
    np.testing.assert_allclose([back.v_rest, back.v_th], [-70.0, -55.0], rtol=1e-14)
    for fixed in ("r_m", "v_reset", "t_ref"):
        assert getattr(back, fixed) is getattr(params, fixed)
    moved = c.to_params({**free, "v_rest": free["v_rest"] + 1.0}, params)
    np.testing.assert_allclose(moved.v_rest, -69.0, rtol=1e-14)


def test_patterns_free_many_leaves_in_a_line():
    assert names(jl.LIFParams(), {"v_*": (-90.0, -40.0)}) == ["v_rest", "v_th", "v_reset"]
    assert names(NETWORK, {"*.tau_m": (1.0, 100.0)}) == ["0.neuron.tau_m", "1.neuron.tau_m"]
    assert names(NETWORK, {"*.tau_*": (1.0, 100.0)}) == ["0.neuron.tau_m", "1.neuron.tau_m", "1.synapse.tau_syn"]
    assert names(NETWORK, {"1.*": REAL})[0] == "1.neuron.tau_m" and len(names(NETWORK, {"*": REAL})) == 14
    assert names(NETWORK, {"0.weight": REAL, "?.neuron.r_m": REAL}) == ["0.neuron.r_m", "0.weight", "1.neuron.r_m"]


@pytest.mark.parametrize("order", [1, -1])
def test_a_full_name_takes_precedence_over_a_pattern(order):
    bounds = {"*.tau_m": (1.0, 100.0), "1.neuron.tau_m": (5.0, 15.0)}
    free = dict(coordinates(NETWORK, dict(list(bounds.items())[::order])).free)
    assert free == {"0.neuron.tau_m": Interval(1.0, 100.0), "1.neuron.tau_m": Interval(5.0, 15.0)}


def test_a_full_name_settles_a_clash_of_patterns():
    bounds = {"1.neuron.t*": (0.0, 50.0), "*.tau_m": (1.0, 100.0), "1.neuron.tau_m": (5.0, 15.0)}
    assert dict(coordinates(NETWORK, bounds).free)["1.neuron.tau_m"] == Interval(5.0, 15.0)


def test_patterns_that_agree_are_no_clash_and_others_are():
    agreeing = {"1.neuron.tau*": (1.0, 100.0), "*.tau_m": (1, 100)}
    assert names(NETWORK, agreeing) == ["0.neuron.tau_m", "1.neuron.tau_m"]
    with pytest.raises(ValueError, match="'1.neuron.tau_m' by two patterns with different intervals: keep one"):
        coordinates(NETWORK, {"1.neuron.tau*": (1.0, 100.0), "*.tau_m": (2.0, 100.0)})


def test_coordinates_are_a_value_whatever_the_order_of_the_bounds():
    a = coordinates(jl.LIFParams(), {"tau_m": (2, 60), "v_th": REAL})
    b = coordinates(jl.LIFParams(tau_m=11.0), {"v_th": [-np.inf, np.inf], "tau_m": np.array([2.0, 60.0])})
    assert a == b and hash(a) == hash(b)


@pytest.mark.parametrize(
    "bounds, message",
    [
        ({"tau": (2.0, 60.0)}, "bounds name 'tau', which is no parameter; the parameters are tau_m, r_m, v_rest, v_th"),
        ({"*.tau_m": (2.0, 60.0)}, "bounds name '*.tau_m', which is no parameter"),
        ({"TAU_M": (2.0, 60.0)}, "bounds name 'TAU_M', which is no parameter"),
        ({"tau_m": (60.0, 2.0)}, "bounds['tau_m'] = (60.0, 2.0): low must be less than high"),
        ({"tau_m": (2.0, 2.0)}, "bounds['tau_m'] = (2.0, 2.0): low must be less than high"),
        ({"tau_m": (math.inf, -math.inf)}, "bounds['tau_m'] = (inf, -inf): low must be less than high"),
        ({"tau_m": (math.nan, 2.0)}, "bounds['tau_m'] = (nan, 2.0): low must be less than high"),
        ({"tau_m": 60.0}, "bounds['tau_m'] = 60.0: bounds must be a pair (low, high)"),
        ({"tau_m": None}, "bounds['tau_m'] = None: bounds must be a pair (low, high)"),
        ({"tau_m": (2.0, None)}, "bounds['tau_m'] = (2.0, None): bounds must be a pair"),
        ({"tau_m": (1.0, 2.0, 3.0)}, "bounds['tau_m'] = (1.0, 2.0, 3.0)"),
        ({"tau_m": ("low", 2.0)}, "bounds['tau_m'] = ('low', 2.0)"),
        ({"tau_m": (20.0, 60.0)}, "tau_m = 10: the start must lie inside its bounds (20, 60)"),
        ({"tau_m": (10.0, 60.0)}, "tau_m = 10: the start must lie inside its bounds (10, 60)"),
        ({"tau_m": (2.0, 10.0)}, "tau_m = 10: the start must lie inside its bounds (2, 10)"),
        ({"v_*": (-60.0, 0.0)}, "v_rest = -70: the start must lie inside its bounds (-60, 0)"),
    ],
)
def test_a_bound_that_does_not_fit_is_named(bounds, message):
    with pytest.raises(ValueError) as error:
        coordinates(jl.LIFParams(), bounds)
    assert message in str(error.value)


@pytest.mark.parametrize("leaf", [np.array([1, 2]), np.arange(3, dtype=np.int8), np.array(True), 1 + 2j])
def test_only_floating_leaves_can_be_free(leaf):
    with pytest.raises(ValueError, match="count has dtype .*: only floating parameters can be free"):
        coordinates({"count": leaf}, {"count": REAL})
    assert coordinates({"count": leaf, "x": 1.0}, {"x": REAL}).free  # fixed, it is no concern of ours


def test_the_first_offending_entry_of_an_array_is_told():
    params = replace(jl.LIFParams(), tau_m=jnp.array([10.0, 70.0, -3.0]))
    with pytest.raises(ValueError, match=r"tau_m = 70: the start must lie inside its bounds \(2, 60\)"):
        coordinates(params, {"tau_m": (2.0, 60.0)})
    with pytest.raises(ValueError, match="tau_m = nan: the start must lie inside"):
        coordinates(replace(params, tau_m=jnp.array([10.0, jnp.nan])), {"tau_m": REAL})


def test_whole_numbers_are_floating_starts(dtype):
    free = coordinates({"x": 3}, {"x": (0, 10)}).to_free({"x": 3})
    assert free["x"].dtype == dtype and not free["x"].weak_type


@pytest.mark.parametrize("half", [jnp.float16, jnp.bfloat16])
def test_half_precision_moves_in_single(half):
    """Adam's epsilon of 1e-8 is 0 in float16, where no step was taken and none refused."""
    params = {"x": jnp.asarray(3.0, half)}
    assert coordinates(params, {"x": (0, 10)}).to_free(params)["x"].dtype == jnp.float32
