"""Losses against plain NumPy, their refusals, and their gradients against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlif import losses
from jaxlif.networks import Activity

RNG = np.random.default_rng(0)
T, N = 40, 3
V, TARGET = RNG.normal(-60.0, 5.0, (2, T, N))
MASK = RNG.random((T, N)) < 0.6
TRAIN, OTHER = (RNG.random((2, T, N)) < 0.2).astype(float)
# Sums of a hundred terms: a few units in the last place of either precision.
RTOL = {"float64": 1e-12, "float32": 1e-5}


def gradient_agrees(loss, x):
    """Compare a directional derivative with the central difference, whose error at 1e-5 is far below 1e-6."""
    x, direction, loss = np.asarray(x), np.random.default_rng(1).normal(size=x.shape), jax.jit(loss)
    exact = np.vdot(jax.jit(jax.grad(loss))(x), direction)
    central = (loss(x + 1e-5 * direction) - loss(x - 1e-5 * direction)) / 2e-5
    assert float(exact) != 0.0
    np.testing.assert_allclose(exact, central, rtol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_voltage_mse(dtype, masked):
    v, target = jnp.asarray(V, dtype), jnp.asarray(TARGET, dtype)
    value = losses.voltage_mse(v, target, jnp.asarray(MASK) if masked else None)
    squares = ((V - TARGET) ** 2)[MASK] if masked else (V - TARGET) ** 2
    assert value.dtype == dtype and value.shape == ()
    np.testing.assert_allclose(value, squares.mean(), rtol=RTOL[dtype])


def test_voltage_mse_where_nothing_counts_is_zero_with_a_finite_gradient():
    value, grad = jax.value_and_grad(losses.voltage_mse)(jnp.asarray(V), jnp.asarray(TARGET), jnp.zeros((T, N)))
    assert value == 0.0 and (grad == 0.0).all()


def test_rate_mse(dtype):
    rates, target = np.array([0.0, 12.5, 40.0]), np.array([1.0, 10.0, 44.0])
    value = losses.rate_mse(jnp.asarray(rates, dtype), jnp.asarray(target, dtype))
    assert value.dtype == dtype
    np.testing.assert_allclose(value, (1.0 + 6.25 + 16.0) / 3.0, rtol=RTOL[dtype])


@pytest.mark.parametrize("dt", [0.1, 2.0])
def test_spike_count_rate(dtype, dt):
    value = losses.spike_count_rate(jnp.asarray(TRAIN, dtype), dt)
    assert value.dtype == dtype and value.shape == (N,)
    np.testing.assert_allclose(value, TRAIN.sum(axis=0) / (T * dt / 1000.0), rtol=RTOL[dtype])


# The last is silent, the one before has a regular train; of the first two intervals there are too few.
RASTER = np.zeros((240, 6))
RASTER[[3, 60, 200], 0] = 1.0
RASTER[:, 1:4] = RNG.random((240, 3)) < (0.03, 0.1, 0.2)
RASTER[5::20, 4] = 1.0


def activity():
    steps, neurons = np.nonzero(RASTER)
    return Activity({"E": 6}, 0.0, 120.0, {"E": 0.5 * (steps + 1)}, {"E": neurons})


def test_interval_cv_is_that_of_an_activity(dtype):
    value = losses.interval_cv(jnp.asarray(RASTER, dtype))
    assert value.dtype == dtype
    # The variance of the regular train is the difference of equal numbers, and the root of what rounding leaves of it.
    np.testing.assert_allclose(value, activity().cv("E"), rtol={"float64": 1e-8, "float32": 1e-3}[dtype])


def test_the_slope_of_interval_cv_is_what_a_spike_changes():
    """Of the number of intervals, their sum and that of their squares, each counted with the spike and without."""

    def moments(train):
        intervals = np.diff(np.flatnonzero(train)).astype(float)
        return np.array([len(intervals), intervals.sum(), (intervals**2).sum()])

    train = RASTER[:, 2]
    found = jax.jit(jax.grad(losses.interval_cv))(train)
    count, total, squares = moments(train)
    cv = np.sqrt(squares * count / total**2 - 1.0)
    slope = np.array([squares / total**2, -2.0 * squares * count / total**3, count / total**2]) / (2.0 * cv)
    for n in range(0, 240, 7):
        with_it, without = train.copy(), train.copy()
        with_it[n], without[n] = 1.0, 0.0
        np.testing.assert_allclose(found[n], slope @ (moments(with_it) - moments(without)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("width", [0.5, 4.5, 10.0])
def test_count_correlation_is_that_of_an_activity(dtype, width):
    value = losses.count_correlation(jnp.asarray(RASTER, dtype), 0.5, width=width)
    assert value.dtype == dtype
    # The variance of the sum is its sixth, less one.
    np.testing.assert_allclose(value, activity().correlation("E", width), rtol=0, atol=5 * RTOL[dtype])


def test_the_slope_of_count_correlation():
    gradient_agrees(lambda x: losses.count_correlation(x, 0.5, width=4.5), RASTER[:, :5])


def test_statistics_of_silent_neurons_have_no_slope():
    for loss in (losses.interval_cv, lambda x: losses.count_correlation(x, 0.5, width=4.5)):
        slopes = jax.grad(loss)(jnp.asarray(RASTER))
        assert np.isfinite(slopes).all() and (slopes[:, 5] == 0.0).all() and (slopes[:, 2] != 0.0).any()
        value, slopes = jax.value_and_grad(loss)(jnp.zeros((240, 6)))
        assert np.isnan(value) and (slopes == 0.0).all()


def test_count_correlation_refuses_widths_that_do_not_fit():
    for width, rule in ((0.7, "a whole number of steps of dt = 0.5 ms"), (61.0, "must fit into the 120 ms")):
        with pytest.raises(ValueError, match=rule):
            losses.count_correlation(RASTER, 0.5, width=width)


def pairwise(a, b, tau):
    """Return the distance of two lists of spike times: all pairs, each the closed integral of two exponentials."""
    times, signs = np.concatenate([a, b]), np.repeat([1.0, -1.0], [len(a), len(b)])
    return 0.5 * signs @ np.exp(-np.abs(np.subtract.outer(times, times)) / tau) @ signs


@pytest.mark.parametrize(("tau", "dt"), [(10.0, 0.5), (0.7, 1.0)])
def test_van_rossum_is_the_exact_distance_of_the_spike_times(dtype, tau, dt):
    value = losses.van_rossum(jnp.asarray(TRAIN, dtype), jnp.asarray(OTHER, dtype), tau=tau, dt=dt)
    times = [[dt * (np.flatnonzero(column) + 1) for column in train.T] for train in (TRAIN, OTHER)]
    exact = [pairwise(a, b, tau) for a, b in zip(*times, strict=True)]
    assert value.dtype == dtype
    np.testing.assert_allclose(value, np.mean(exact), rtol=RTOL[dtype])
    assert losses.van_rossum(jnp.asarray(TRAIN, dtype), jnp.asarray(TRAIN, dtype), tau=tau, dt=dt) == 0.0


@pytest.mark.parametrize("half", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_counted_in_single(half):
    """In bfloat16 the filtered train stops rising at 256 spikes."""
    train = np.ones((600, 1))
    value = losses.van_rossum(jnp.asarray(train, half), jnp.zeros((600, 1), half), tau=1e4, dt=1.0)
    assert value.dtype == jnp.float32
    exact = losses.van_rossum(train, np.zeros((600, 1)), tau=1e4, dt=1.0)
    np.testing.assert_allclose(value, exact, rtol=1e-4)  # single precision over 600 steps


@pytest.mark.parametrize("options", [{}, {"active": 1.0 - OTHER}, {"at": True}])
def test_the_log_likelihood_is_that_of_each_step(dtype, options):
    """A spike with chance 1 - exp(-rate dt) in a step, none with exp(-rate dt), where it can; from rare to certain."""
    log_rate, dt = RNG.uniform(-14.0, 3.0, (T, N)), 0.5
    expected = np.exp(log_rate) * dt
    silent = (TRAIN == 0) & (options.get("active", 1.0) > 0)
    terms = np.where(TRAIN > 0, np.log(-np.expm1(-expected)), np.where(silent, -expected, 0.0))
    if "at" in options:  # places of the spikes, some silent ones, and one beyond the end
        options = {"at": np.append(np.flatnonzero(TRAIN), [*np.flatnonzero(TRAIN == 0)[:3], TRAIN.size + 7])}
    value = losses.point_process_log_likelihood(
        jnp.asarray(log_rate, dtype), jnp.asarray(TRAIN, dtype), dt=dt, **options
    )
    assert value.dtype == dtype
    # The series of rare spikes leaves expected² / 24 < 5e-10 of a term of some -10.
    np.testing.assert_allclose(value, terms.sum(), rtol=max(RTOL[dtype], 1e-10))


def test_the_tangent_above_six_keeps_a_start_finite():
    likelihood = jax.jit(jax.value_and_grad(lambda x: losses.point_process_log_likelihood(x, np.zeros(1), dt=1.0)))
    value, slope = likelihood(np.array([2000.0]))
    np.testing.assert_allclose(value, -np.exp(6.0) * (1.0 + 1994.0), rtol=1e-12)
    np.testing.assert_allclose(slope, -np.exp(6.0), rtol=1e-12)


def test_bits_per_spike_of_a_poisson_train_are_those_of_its_likelihood_ratio():
    """Twice the rate while it spikes and none elsewhere, half the time: one bit for each spike."""
    n, duration = 40, 2000.0
    assert losses.bits_per_spike(n * np.log(2 * n / duration) - n, n, duration) == pytest.approx(1.0, rel=1e-12)


def test_gradients():
    v, train, other = map(jnp.asarray, (V, TRAIN, OTHER))
    gradient_agrees(lambda x: losses.voltage_mse(x, jnp.asarray(TARGET), jnp.asarray(MASK)), v)
    gradient_agrees(lambda x: losses.rate_mse(x, jnp.asarray(TARGET[:, 0])), v[:, 0])
    gradient_agrees(lambda x: jnp.sum(losses.spike_count_rate(x, 0.1) ** 2), train)
    gradient_agrees(lambda x: losses.point_process_log_likelihood((x + 55.0) / 2.0, train, dt=0.5), v)
    gradient_agrees(lambda x: losses.van_rossum(x, other, tau=10.0, dt=0.5), train)


@pytest.mark.parametrize(
    "call",
    [
        losses.voltage_mse,
        losses.rate_mse,
        lambda a, b: losses.van_rossum(a, b, tau=10.0, dt=0.1),
        lambda a, b: losses.point_process_log_likelihood(a, b, dt=0.1),
        lambda a, b: losses.point_process_log_likelihood(a, a, dt=0.1, active=b),
    ],
)
@pytest.mark.parametrize("shape", [(T, 1), (T,), (T, 1, N), ()])
def test_no_loss_broadcasts(call, shape):
    with pytest.raises(ValueError, match=r"has shape \(40, 3\) and .*: they must agree"):
        call(jnp.zeros((T, N)), jnp.zeros(shape))


# Each loss of one sample x [T, N] and another y.
OF_A_SAMPLE = {
    "voltage_mse": losses.voltage_mse,
    "spike_count_rate": lambda x, y, m=None: jnp.sum(losses.spike_count_rate(x, 0.5, m)),
}
WITHOUT_A_MASK = {
    "van_rossum": lambda x, y: losses.van_rossum(x, y, tau=5.0, dt=0.5),
    "log_likelihood": lambda x, y: losses.point_process_log_likelihood(x, y, dt=0.5),
    "rate_mse": losses.rate_mse,
    "spike_mask": lambda x, y: losses.spike_mask(x, before=0, after=0),
}


@pytest.mark.parametrize("call", (OF_A_SAMPLE | WITHOUT_A_MASK).values(), ids=(OF_A_SAMPLE | WITHOUT_A_MASK).keys())
def test_a_batch_goes_through_vmap_alone(call):
    batch = np.stack([TRAIN, OTHER])
    with pytest.raises(ValueError, match=r"^\w+ has shape \(2, 40, 3\): it must be one sample, \[T\] or \[T, N\] with"):
        call(batch, batch)


@pytest.mark.parametrize("call", OF_A_SAMPLE.values(), ids=OF_A_SAMPLE.keys())
def test_padding_changes_no_number(call):
    """Behind the end of a sample may stand anything: its loss and gradient are those of the sample alone."""
    end = 27
    mask = np.arange(T) < end
    padded = np.where(mask[:, None], TRAIN, np.nan), np.where(mask[:, None], OTHER, np.inf)
    slopes = jax.value_and_grad(call)
    value, gradient = jax.jit(jax.vmap(slopes))(*(np.stack([x, x]) for x in padded), np.stack([mask, mask]))
    expected, slope = jax.jit(slopes)(TRAIN[:end], OTHER[:end])
    # Zeros are added to the same sums: equal to a few units in the last place.
    np.testing.assert_allclose(value, [expected] * 2, rtol=1e-14)
    np.testing.assert_allclose(gradient[0, :end], slope, rtol=1e-13, atol=1e-16)
    assert not gradient[:, end:].any()


def test_masks_of_another_shape_or_of_weights_are_refused():
    x = jnp.zeros((T, N))
    with pytest.raises(
        ValueError, match=r"^v has shape \(40, 3\) and mask \(3,\): they must agree, or mask be \(40,\)$"
    ):
        losses.voltage_mse(x, x, jnp.ones(N))
    with pytest.raises(ValueError, match="^mask holds values other than 0 and 1: it must say yes or no of"):
        losses.voltage_mse(x, x, jnp.full(T, 0.5))


def test_whole_numbers_and_booleans_count_as_floating_ones():
    """A recording's spikes are booleans; a target must not be cut to a whole number because the model's is one."""
    train, other = TRAIN > 0, OTHER.astype(int)
    value = losses.van_rossum(train, other, tau=10.0, dt=0.5)
    assert value == losses.van_rossum(TRAIN, OTHER, tau=10.0, dt=0.5) > 0
    assert losses.voltage_mse([-60, -61], [-60.5, -61.0]) == losses.rate_mse([1, 2], [1.5, 2.0]) == 0.125
    np.testing.assert_array_equal(losses.spike_count_rate(train, 1), losses.spike_count_rate(TRAIN, 1.0))


@pytest.mark.parametrize("bad", [np.nan, 2.0])
def test_what_says_where_a_neuron_spikes_or_can_is_0_or_1(bad):
    """A nan is above 0 as little as a 0 is, and would count as silence."""
    x, marked = np.zeros((T, N)), np.where(np.arange(T * N).reshape(T, N) == 4, bad, 1.0)
    for options in ({"spikes": marked}, {"spikes": x, "active": marked}):
        with pytest.raises(ValueError, match="holds values other than 0 and 1"):
            losses.point_process_log_likelihood(x, dt=1.0, **options)
    if np.isnan(bad):
        with pytest.raises(ValueError, match=r"^spikes\[1, 1\] = nan: spikes must be finite"):
            losses.spike_mask(marked, before=1, after=1)


@pytest.mark.parametrize("bad", [0.0, -2.0, np.nan, np.inf, "1", None, 1j])
def test_time_constants_and_steps_are_positive_numbers(bad):
    x = jnp.asarray(TRAIN)
    calls = {
        "dt": [
            lambda: losses.spike_count_rate(x, bad),
            lambda: losses.van_rossum(x, x, tau=1.0, dt=bad),
            lambda: losses.point_process_log_likelihood(x, x, dt=bad),
        ],
        "tau": [lambda: losses.van_rossum(x, x, tau=bad, dt=1.0)],
        "num_spikes": [lambda: losses.bits_per_spike(-3.0, bad, 100.0)],
        "duration": [lambda: losses.bits_per_spike(-3.0, 2, bad)],
    }
    for name, bodies in calls.items():
        for call in bodies:
            with pytest.raises(
                ValueError, match=f"^{name} = .*: {name} must be (greater than 0|finite|a number)"
            ) as caught:
                call()
            assert "\n" not in str(caught.value)


def brute_force_mask(train, before, after):
    mask = np.ones(train.shape, bool)
    for index in np.argwhere(train > 0):
        for n in range(len(train)):
            if index[0] - before <= n < index[0] + after:
                mask[n, *index[1:]] = False
    return mask


@pytest.mark.parametrize("before", [0, 1, 5, 60])
@pytest.mark.parametrize("after", [0, 1, 7, 60])
@pytest.mark.parametrize("columns", [None, 3])
def test_spike_mask(before, after, columns):
    shape = (T,) if columns is None else (T, columns)
    train = np.random.default_rng(before + 100 * after).random(shape) < 0.1
    train[0], train[-1] = True, True
    expected = brute_force_mask(train, before, after)
    np.testing.assert_array_equal(losses.spike_mask(train, before=before, after=after), expected)


@pytest.mark.parametrize("bad", [-1, 1.5, True, "2"])
def test_spike_mask_refuses_what_is_no_count(bad):
    with pytest.raises(ValueError, match=f"^before = {bad!r} samples: before must be a whole number, 0 or more$"):
        losses.spike_mask([0, 1], before=bad, after=2)
