"""Convolution, pooling and normalisation against plain NumPy, steps against the whole time axis, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.networks import Conv, Dense, DenseParams, Flatten, Normalise, Sequential, SumPool, init_dense

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


CONVOLUTIONS = {
    "line": (LINE, (3,), (1,), "SAME", True),
    "even kernel": (LINE, (4,), (2,), "SAME", False),
    "valid line": (LINE, (4,), (2,), "VALID", True),
    "image": (IMAGE, (3, 3), (1, 1), "SAME", True),
    "oblong": (IMAGE, (2, 3), (2, 1), "VALID", False),
    "even image": (IMAGE, (4, 4), (3, 2), "SAME", True),
}


@pytest.mark.parametrize(("inputs", "kernel", "stride", "padding", "bias"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolution_equals_plain_loops(inputs, kernel, stride, padding, bias, dtype):
    weight, b = RNG.normal(size=(2, 5, *kernel)), RNG.normal(size=5) * bias
    params = DenseParams(weight=jnp.asarray(weight, dtype), bias=jnp.asarray(b, dtype) if bias else None)
    _, y = jl.simulate(Conv(stride=stride, padding=padding), params, jnp.asarray(inputs, dtype))

    def value(patch):
        return [np.sum(w * patch) + c for w, c in zip(np.swapaxes(weight, 0, 1), b, strict=True)]

    expected = np.stack([over_windows(x, kernel, stride, padding, 0.0, 5, value) for x in inputs])
    assert y.dtype == dtype
    np.testing.assert_allclose(y, expected, **CLOSE[dtype])


POOLS = [(LINE, 2, None, "SAME"), (LINE, (3,), 1, "VALID"), (IMAGE, 2, None, "VALID"), (IMAGE, (3, 2), 1, "SAME")]


@pytest.mark.parametrize(("inputs", "window", "stride", "padding"), POOLS)
def test_pooling_equals_plain_loops(inputs, window, stride, padding):
    places = inputs.ndim - 2
    k = (window,) * places if isinstance(window, int) else window
    s = k if stride is None else (stride,) * places

    def value(patch):
        return np.sum(patch.reshape(2, -1), axis=1)

    _, y = jl.simulate(SumPool(window, stride, padding), None, inputs)
    expected = np.stack([over_windows(x, k, s, padding, 0.0, 2, value) for x in inputs])
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-13)


LAYERS = {
    "conv": (Conv(2, "VALID"), init_dense(jax.random.key(0), 2, 3, kernel=(3, 2)), IMAGE),
    "sum": (SumPool(2), None, IMAGE),
    "flatten": (Flatten(), None, IMAGE),
}


@pytest.mark.parametrize(("cell", "params", "inputs"), LAYERS.values(), ids=LAYERS)
def test_spikes_of_any_dtype_step_by_step_or_at_once(cell, params, inputs):
    spikes = inputs > 0.5
    expected = cell.scan(params, (), jnp.asarray(spikes, float))[1]
    for kind in (bool, "uint8"):
        y = np.stack([cell.step(params, (), jnp.asarray(x.astype(kind)))[1] for x in spikes])
        # One sample or T at a time: another order of the same sums.
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-13)


def test_the_gradient_of_a_convolution_is_that_of_its_sums():
    """Linear in the weight: the gradient of a weight is the sum of what it multiplies."""
    cell, probe = Conv(padding="VALID"), RNG.normal(size=(T, 1, 7))
    params = DenseParams(weight=jnp.zeros((2, 1, 3)), bias=jnp.zeros(1))
    gradient = jax.grad(lambda p: jnp.sum(probe * jl.simulate(cell, p, LINE)[1]))(params)
    expected = [[np.sum(probe[:, 0] * LINE[:, c, k : k + 7]) for k in range(3)] for c in range(2)]
    np.testing.assert_allclose(gradient.weight[:, 0], expected, rtol=1e-12)
    np.testing.assert_allclose(gradient.bias, [probe.sum()], rtol=1e-12)


def test_a_number_pads_both_sides():
    params = init_dense(jax.random.key(0), 2, 5, kernel=(3, 3))
    y = Conv(2, (1, 2)).scan(params, (), jnp.asarray(IMAGE))[1]
    wide = np.pad(IMAGE, [(0, 0), (0, 0), (1, 1), (2, 2)])
    np.testing.assert_allclose(y, Conv(2, "VALID").scan(params, (), jnp.asarray(wide))[1], rtol=0, atol=1e-13)
    y = SumPool(3, 2, 1).scan(None, (), jnp.asarray(IMAGE))[1]
    wide = np.pad(IMAGE, [(0, 0), (0, 0), (1, 1), (1, 1)])
    np.testing.assert_allclose(y, SumPool(3, 2).scan(None, (), jnp.asarray(wide))[1], rtol=0, atol=1e-13)


def test_pooled_gradients_go_where_the_value_came_from():
    gradient = jax.grad(lambda x: jnp.sum(SumPool(2).scan(None, (), x)[1] ** 2))(jnp.array([[[1.0, 5.0, 2.0, 2.0]]]))
    np.testing.assert_array_equal(gradient[0, 0], [12.0, 12.0, 8.0, 8.0])


def test_a_convolutional_network_trains_through():
    network = Sequential((Conv(2), jl.LIF(dt=1.0), SumPool(2), Flatten(), Dense()))
    keys = jax.random.split(jax.random.key(1))
    params = (
        init_dense(keys[0], 2, 4, kernel=(3, 3), gain=40.0),
        jl.LIFParams(tau_m=20.0, t_ref=0.0).normalised(),
        None,
        None,
        init_dense(keys[1], 16, 3),
    )
    inputs = np.abs(RNG.normal(size=(10, 2, 8, 8)))

    def loss(p):
        output = jl.simulate(network, p, inputs)[1]
        return jnp.sum(output.output**2), output

    gradient, output = jax.grad(loss, has_aux=True)(params)
    assert output.layers[1].spikes.shape == (10, 4, 4, 4) and output.layers[1].spikes.sum() > 0
    assert output.output.shape == (10, 3)
    assert np.abs(gradient[0].weight).min() > 0 and np.isfinite(gradient[0].weight).all()


def test_initial_scales():
    params = init_dense(jax.random.key(0), 8, 100, kernel=(5, 5), gain=3.0)
    # 20 000 draws: the standard error of the deviation is half a percent; five of them.
    np.testing.assert_allclose(params.weight.std(), 3.0 / 200.0**0.5, rtol=0.025)
    assert params.weight.shape == (8, 100, 5, 5) and params.bias.shape == (100,) and not params.bias.any()


FEATURES = np.random.default_rng(8).normal(3.0, 2.0, (20, 7))


def test_normalise_equals_numpy(dtype):
    _, y = jl.simulate(Normalise(epsilon=0.1), (), jnp.asarray(FEATURES, dtype))
    spread = np.sqrt(FEATURES.var(axis=1, keepdims=True) + 0.1)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, (FEATURES - FEATURES.mean(axis=1, keepdims=True)) / spread, rtol=1e-4, atol=1e-5)
    _, other = jl.simulate(Normalise(1e-12), (), 7.0 * FEATURES.reshape(10, 2, 7) - 30.0)  # images, another scale
    np.testing.assert_allclose(other.std(axis=(1, 2)), 1.0, rtol=1e-6)  # some roundings in single precision


def test_silence_is_normalised_to_0_with_a_finite_gradient():
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(jl.simulate(Normalise(), (), x)[1] ** 2))(jnp.zeros((2, 7)))
    assert value == 0.0 and np.isfinite(gradient).all()


KEY, IMAGES = jax.random.key(0), np.zeros((T, 2, 8, 8))
REFUSED = {
    "stride": (lambda: Conv(stride=0), r"^stride = 0: stride must be a whole number, 1 or more"),
    "half a stride": (lambda: Conv(1.5), "stride = 1.5: stride must be a whole number"),
    "strides": (lambda: run(Conv((1, 2)), (3,), LINE), r"^stride = \(1, 2\): .* one for each of 1 axes"),
    "padding": (lambda: Conv(padding="FULL"), r"^padding = 'FULL': padding must be \"SAME\", \"VALID\" or a number"),
    "negative padding": (lambda: Conv(padding=-1), r"^padding = -1: padding must be a whole number, 0 or more"),
    "window": (lambda: SumPool(0), r"^window = 0"),
    "pool's stride": (lambda: SumPool(2, stride=(0, 1)), "^stride = 0: "),
    "windows": (lambda: run(SumPool((2,)), None, IMAGE), r"^window = \(2,\): .* one for each of 2 axes"),
    "no channels": (lambda: init_dense(KEY, 0, 1, kernel=(3,)), r"^num_in = 0: num_in must be a whole number, 1 or"),
    "empty kernel": (lambda: init_dense(KEY, 1, 1, kernel=(3, 0)), r"^kernel = 0"),
    "kernel": (lambda: init_dense(KEY, 1, 1, kernel=3), "kernel = 3: kernel must be a tuple of sizes"),
    "channels": (lambda: run(Conv(), (3, 3), IMAGES[:, :1]), r"^weight \[2, 3, 3, 3\] takes an input \[2, H, W\], not"),
    "places": (lambda: run(Conv(), (3, 3), LINE), r"takes an input \[2, H, W\], not \[2, 9\]"),
    "no kernel": (lambda: run(Conv(), (), LINE), r"weight \[2, 3\]: Conv takes \[num_in, num_out, \*kernel\]"),
    "dense": (
        lambda: jl.simulate(Dense(), DenseParams(weight=np.ones((2, 3, 3))), np.zeros((T, 2))),
        r"weight is float64 \[2, 3, 3\]: weight must be a floating array \[num_in, num_out\]",
    ),
    "beyond": (lambda: run(Conv(padding="VALID"), (3, 9), IMAGES), r"it must fit into the input \[8, 8\]"),
    "beyond the padding": (lambda: run(Conv(padding=0), (9, 9), IMAGES), r"with padding \[0, 0\] it must fit"),
    "window beyond": (lambda: run(SumPool(9), None, IMAGES), r"window \[9, 9\]: with padding"),
    "epsilon": (lambda: Normalise(0.0), r"^epsilon = 0: epsilon must be greater than 0"),
    "params of none": (
        lambda: jl.simulate(Normalise(), DenseParams(weight=jnp.ones((2, 2))), np.ones((4, 2))),
        "has none, give",
    ),
    "one feature": (lambda: jl.simulate(Normalise(), (), np.ones((4, 1))), r"^input \[1\]: the spread"),
    "no places": (lambda: run(SumPool(2), None, np.zeros((T, 5))), r"^SumPool takes an input .* not \[5\]"),
}


def run(cell, kernel, inputs):
    params = None if kernel is None else DenseParams(weight=jnp.asarray(np.ones((2, 3, *kernel))))
    return jl.simulate(cell, params, inputs)


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
