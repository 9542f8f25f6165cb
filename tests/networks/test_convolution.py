"""Convolution and pooling against plain NumPy loops, stepping against the whole time axis, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.networks import Dense, Sequential, init_dense
from jaxlif.networks.convolution import Conv1D, Conv2D, ConvParams, Flatten, MaxPool, SumPool, init_conv

T = 4
RNG = np.random.default_rng(3)
LINE, IMAGE = RNG.normal(size=(T, 2, 9)), RNG.normal(size=(T, 2, 7, 6))
CLOSE = {"float64": {"rtol": 1e-12, "atol": 1e-12}, "float32": {"rtol": 1e-4, "atol": 1e-5}}


def padded(x, window, stride, padding, fill):
    """Pad the places of [C, ...] so that ceil(n / stride) windows fit, the odd one at the end."""
    if padding == "VALID":
        return x
    widths = [(0, 0)]
    for n, k, s in zip(x.shape[1:], window, stride, strict=True):
        total = max((-(-n // s) - 1) * s + k - n, 0)
        widths.append((total // 2, total - total // 2))
    return np.pad(x, widths, constant_values=fill)


def windows_by_hand(x, window, stride, padding, fill):
    """Yield each window's index and its patch [C, *window], in plain loops."""
    x = padded(x, window, stride, padding, fill)
    counts = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:], window, stride, strict=True)]
    for index in np.ndindex(*counts):
        cut = tuple(slice(i * s, i * s + k) for i, s, k in zip(index, stride, window, strict=True))
        yield counts, index, x[(slice(None), *cut)]


def over_windows(x, window, stride, padding, fill, channels, value):
    out = None
    for counts, index, patch in windows_by_hand(x, window, stride, padding, fill):
        out = np.zeros((channels, *counts)) if out is None else out
        out[(slice(None), *index)] = value(patch)
    return out


CONVOLUTIONS = [
    (Conv1D, LINE, (3,), (1,)),
    (Conv1D, LINE, (4,), (2,)),
    (Conv2D, IMAGE, (3, 3), (1, 1)),
    (Conv2D, IMAGE, (2, 3), (2, 1)),
    (Conv2D, IMAGE, (4, 4), (3, 2)),
]


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("cell", "inputs", "kernel", "stride"), CONVOLUTIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_convolution_equals_plain_loops(dtype, cell, inputs, kernel, stride, padding, bias):
    weight, b = RNG.normal(size=(5, 2, *kernel)), RNG.normal(size=5) * bias
    params = ConvParams(weight=jnp.asarray(weight, dtype), bias=jnp.asarray(b, dtype) if bias else None)
    _, y = jl.simulate(cell(stride=stride, padding=padding), params, jnp.asarray(inputs, dtype))

    def value(patch):
        return [np.sum(w * patch) + c for w, c in zip(weight, b, strict=True)]

    expected = np.stack([over_windows(x, kernel, stride, padding, 0.0, 5, value) for x in inputs])
    assert y.dtype == dtype
    np.testing.assert_allclose(y, expected, **CLOSE[dtype])


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("inputs", "window", "stride"), [(LINE, 2, None), (LINE, (3,), 1), (IMAGE, 2, None)])
@pytest.mark.parametrize(("cell", "fill", "reduce"), [(SumPool, 0.0, np.sum), (MaxPool, -np.inf, np.max)])
def test_pooling_equals_plain_loops(cell, fill, reduce, inputs, window, stride, padding):
    places = inputs.ndim - 2
    k = (window,) * places if isinstance(window, int) else window
    s = k if stride is None else (stride,) * places

    def value(patch):
        return reduce(patch.reshape(2, -1), axis=1)

    _, y = jl.simulate(cell(window, stride, padding), None, inputs)
    expected = np.stack([over_windows(x, k, s, padding, fill, 2, value) for x in inputs])
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-13)


LAYERS = {
    "conv1d": (Conv1D(2), init_conv(jax.random.key(0), 2, 3, (3,)), LINE),
    "conv2d": (Conv2D((2, 1), "VALID"), init_conv(jax.random.key(0), 2, 3, (3, 2)), IMAGE),
    "sum": (SumPool(2), None, IMAGE),
    "max": (MaxPool((3, 2), 1, "SAME"), None, IMAGE),
    "flatten": (Flatten(), None, IMAGE),
}


@pytest.mark.parametrize(("cell", "params", "inputs"), LAYERS.values(), ids=LAYERS)
def test_stepping_equals_the_whole_time_axis(cell, params, inputs):
    state, whole = jl.simulate(cell, params, inputs)
    stepped = np.stack([cell.step(params, (), jnp.asarray(x))[1] for x in inputs])
    assert state == cell.init_state(params, inputs[0]) == ()
    # One sample or T at a time: another order of the same sums.
    np.testing.assert_allclose(whole, stepped, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("cell", "params", "inputs"), LAYERS.values(), ids=LAYERS)
def test_spikes_of_any_dtype(cell, params, inputs):
    spikes = inputs > 0.5
    expected = cell.scan(params, (), jnp.asarray(spikes, float))[1]
    for kind in (bool, "uint8"):
        y = cell.scan(params, (), jnp.asarray(spikes.astype(kind)))[1]
        np.testing.assert_array_equal(y, expected)


def test_the_gradient_of_a_convolution_is_that_of_its_sums():
    """Linear in the weight: the gradient of a weight is the sum of what it multiplies."""
    cell, probe = Conv1D(padding="VALID"), RNG.normal(size=(T, 1, 7))
    params = ConvParams(weight=jnp.zeros((1, 2, 3)), bias=jnp.zeros(1))
    gradient = jax.grad(lambda p: jnp.sum(probe * jl.simulate(cell, p, LINE)[1]))(params)
    expected = [[np.sum(probe[:, 0] * LINE[:, c, k : k + 7]) for k in range(3)] for c in range(2)]
    np.testing.assert_allclose(gradient.weight[0], expected, rtol=1e-12)
    np.testing.assert_allclose(gradient.bias, [probe.sum()], rtol=1e-12)


def test_a_number_pads_both_sides():
    params = init_conv(jax.random.key(0), 2, 5, (3, 3))
    y = Conv2D(2, (1, 2)).scan(params, (), jnp.asarray(IMAGE))[1]
    wide = np.pad(IMAGE, [(0, 0), (0, 0), (1, 1), (2, 2)])
    np.testing.assert_allclose(y, Conv2D(2, "VALID").scan(params, (), jnp.asarray(wide))[1], rtol=0, atol=1e-13)
    y = SumPool(3, 2, 1).scan(None, (), jnp.asarray(IMAGE))[1]
    wide = np.pad(IMAGE, [(0, 0), (0, 0), (1, 1), (1, 1)])
    np.testing.assert_allclose(y, SumPool(3, 2).scan(None, (), jnp.asarray(wide))[1], rtol=0, atol=1e-13)


def test_pooled_gradients_go_where_the_value_came_from():
    x = jnp.array([[[1.0, 5.0, 2.0, 2.0]]])
    for cell, expected in ((SumPool(2), [1.0, 1.0, 1.0, 1.0]), (MaxPool(2), [0.0, 1.0, 1.0, 0.0])):
        gradient = jax.grad(lambda x, cell=cell: jnp.sum(cell.scan(None, (), x)[1]))(x)
        np.testing.assert_array_equal(gradient[0, 0], expected)


def test_a_convolutional_network_trains_through():
    lif = jl.LIF(dt=1.0)
    network = Sequential((Conv2D(), lif, SumPool(2), Conv2D(2), lif, MaxPool(2), Flatten(), Dense()))
    keys = jax.random.split(jax.random.key(1), 3)
    neuron = jl.LIFParams(tau_m=20.0, t_ref=0.0).normalised()
    params = (
        init_conv(keys[0], 2, 4, (3, 3), gain=40.0),
        neuron,
        None,
        init_conv(keys[1], 4, 6, (3, 3), gain=40.0),
        neuron,
        None,
        None,
        init_dense(keys[2], 12, 3),
    )
    inputs = np.abs(RNG.normal(size=(10, 2, 8, 16)))
    _, output = jl.simulate(network, params, inputs)
    assert output.layers[0].shape == (10, 4, 8, 16) and output.output.shape == (10, 3)
    assert output.layers[4].spikes.shape == (10, 6, 2, 4) and output.layers[4].spikes.sum() > 0
    gradient = jax.grad(lambda p: jnp.sum(jl.simulate(network, p, inputs)[1].output ** 2))(params)
    assert np.abs(gradient[0].weight).min() > 0 and np.isfinite(gradient[0].weight).all()


def test_initial_scales(dtype):
    params = init_conv(jax.random.key(0), 8, 100, (5, 5), gain=3.0)
    # 20 000 draws: the standard error of the deviation is half a percent; five of them.
    np.testing.assert_allclose(params.weight.std(), 3.0 / 200.0**0.5, rtol=0.025)
    assert params.weight.dtype == params.bias.dtype == dtype and not params.bias.any()
    assert init_conv(jax.random.key(0), 1, 1, (2,), bias=False).bias is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv2D(stride=0), r"^stride = 0: stride must be an integer of 1 or more"),
        (lambda: Conv1D(stride=(1, 2)), r"^stride = \(1, 2\): .* one for each of 1 axes"),
        (lambda: Conv2D(padding="FULL"), r"^padding = 'FULL': padding must be \"SAME\", \"VALID\" or a number"),
        (lambda: Conv2D(padding=-1), r"^padding = -1: padding must be an integer of 0 or more"),
        (lambda: SumPool(0), r"^window = 0"),
        (lambda: MaxPool(2, stride=(0, 1)), r"^stride = \(0, 1\)"),
        (lambda: init_conv(jax.random.key(0), 0, 1, (3,)), r"^num_in = 0: num_in must be a whole number, 1 or more"),
        (lambda: init_conv(jax.random.key(0), 1, 1, (3, 0)), r"^kernel_1 = 0"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_sizes_that_disagree_are_refused():
    params = init_conv(jax.random.key(0), 2, 3, (3, 3))
    with pytest.raises(ValueError, match=r"^weight \[3, 2, 3, 3\] takes an input \[2, H, W\], not \[3, 8, 8\]"):
        jl.simulate(Conv2D(), params, np.zeros((T, 3, 8, 8)))
    with pytest.raises(ValueError, match=r"takes an input \[2, H, W\], not \[2, 8\]"):
        jl.simulate(Conv2D(), params, np.zeros((T, 2, 8)))
    with pytest.raises(ValueError, match=r"Conv1D takes a weight \[num_out, num_in, kernel\]"):
        jl.simulate(Conv1D(), params, LINE)
    with pytest.raises(ValueError, match=r"with padding = 'VALID' it must fit into the input \[2, 8\]"):
        jl.simulate(Conv2D(padding="VALID"), params, np.zeros((T, 2, 2, 8)))
    with pytest.raises(ValueError, match=r"^SumPool takes an input \[C, L\] or \[C, H, W\], not \[5\]"):
        jl.simulate(SumPool(2), None, np.zeros((T, 5)))
    with pytest.raises(ValueError, match=r"^window = \(2,\): .* one for each of 2 axes"):
        jl.simulate(MaxPool((2,)), None, IMAGE)
