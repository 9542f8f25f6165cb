import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from jaxlif import stimulus

F32 = jnp.float32


@pytest.mark.parametrize(
    "duration, dt, expected",
    [
        (0.3, 0.1, 3),
        (1e5, 0.1, 1_000_000),
        (1.0, 1 / 3, 3),
        (0.0, 0.1, 0),
        (100.0, float(np.float32(0.1)), 1000),
    ],
)
def test_num_steps_is_safe_from_rounding(duration, dt, expected):
    assert stimulus.num_steps(duration, dt) == expected


@pytest.mark.parametrize(
    "duration, dt, name",
    [(1.05, 0.1, "duration"), (100.01, 0.1, "duration"), (-1.0, 0.1, "duration"), (np.nan, 0.1, "duration")]
    + [(1e6 + 0.05, 0.1, "duration"), (1.0, 0.0, "dt"), (1.0, -0.1, "dt"), (1.0, np.nan, "dt")],
)
def test_num_steps_refuses(duration, dt, name):
    with pytest.raises(ValueError, match=f"^{name} = "):
        stimulus.num_steps(duration, dt)


def test_step_is_on_from_start_up_to_stop():
    current = stimulus.step(50.0, start=1.0, stop=2.5, duration=4.0, dt=0.5, baseline=-10.0)
    np.testing.assert_array_equal(current, [-10, -10, 40, 40, 40, -10, -10, -10])
    np.testing.assert_array_equal(stimulus.step(5.0, 0.0, 2.0, 2.0, 1.0), [5, 5])
    np.testing.assert_array_equal(stimulus.step(5.0, 1.0, 1.0, 2.0, 1.0), [0, 0])


@pytest.mark.parametrize("start, stop", [(2.0, 1.0), (-1.0, 1.0), (1.0, 9.0), (0.25, 1.0)])
def test_step_refuses_times_out_of_order_or_off_the_grid(start, stop):
    with pytest.raises(ValueError, match="ms"):
        stimulus.step(50.0, start, stop, duration=4.0, dt=0.5)


def test_a_level_is_a_number():
    with pytest.raises(ValueError, match=r"amplitude has shape \(2,\)"):
        stimulus.step(jnp.array([1.0, 2.0]), 0.0, 1.0, 1.0, dt=0.1)


def test_ramp_starts_at_its_start_and_would_end_at_its_stop():
    current = stimulus.ramp(10.0, 110.0, duration=1000.0, dt=0.1)
    np.testing.assert_allclose(current, 10.0 + 0.1 * 0.1 * np.arange(10_000), rtol=1e-14)


def test_sinusoid_keeps_its_frequency_in_hz():
    dt = 0.1
    current = stimulus.sinusoid(3.0, 2.0, 40.0, duration=1000.0, dt=dt)
    seconds = np.arange(10_000) * dt / 1000.0
    np.testing.assert_allclose(current, 3.0 + 2.0 * np.sin(2 * np.pi * 40.0 * seconds), rtol=1e-12)
    spectrum = np.abs(np.fft.rfft(current - current.mean()))
    assert spectrum.argmax() == 40  # 1 s: the bin is 1 Hz


def test_ornstein_uhlenbeck_has_its_law_from_the_first_step():
    """Mean and covariance of a stationary Gaussian process say everything about it."""
    count, dt, tau, mean, sd = 4000, 2.0, 5.0, 100.0, 20.0
    keys = jax.random.split(jax.random.key(1), count)
    noise = jax.vmap(lambda key: stimulus.ornstein_uhlenbeck(key, mean, sd, tau, 40.0, dt))(keys)
    lag = np.abs(np.subtract.outer(np.arange(20), np.arange(20))) * dt
    # Standard errors: sd/sqrt(n) of a mean, at most sqrt(2/n) sd^2 of a covariance; five for 400 entries.
    np.testing.assert_allclose(noise.mean(0), mean, atol=5 * sd / np.sqrt(count))
    np.testing.assert_allclose(np.cov(noise.T) / sd**2, np.exp(-lag / tau), atol=5 * np.sqrt(2 / count))


def test_ornstein_uhlenbeck_averages_over_time():
    tau, duration = 3.0, 1e5
    noise = np.asarray(stimulus.ornstein_uhlenbeck(jax.random.key(2), 50.0, 10.0, tau, duration, 0.1))
    # A time average has the standard error sd sqrt(2 tau / T), a variance sd^2 sqrt(2 tau / T).
    assert abs(noise.mean() - 50.0) < 4 * 10.0 * np.sqrt(2 * tau / duration)
    assert abs(noise.var() / 100.0 - 1.0) < 4 * np.sqrt(2 * tau / duration)


def test_ornstein_uhlenbeck_limits():
    key = jax.random.key(3)
    white = stimulus.ornstein_uhlenbeck(key, 0.0, 1.0, 1e-3, 10.0, 0.1)
    np.testing.assert_array_equal(white, jax.random.normal(key, (100,)))
    frozen = stimulus.ornstein_uhlenbeck(key, 0.0, 1.0, 1e12, 10.0, 0.1)
    np.testing.assert_allclose(frozen, frozen[0], atol=1e-4)
    np.testing.assert_array_equal(stimulus.ornstein_uhlenbeck(key, 7.0, 0.0, 3.0, 1.0, 0.1), np.full(10, 7.0))


def test_ornstein_uhlenbeck_is_differentiable():
    def total(mean, sd, tau):
        return stimulus.ornstein_uhlenbeck(jax.random.key(4), mean, sd, tau, 5.0, 0.5).sum()

    jax.test_util.check_grads(total, (10.0, 2.0, 3.0), order=1, modes=["rev"], rtol=1e-6)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda _: stimulus.ornstein_uhlenbeck(0, 0.0, 1.0, 3.0, 1.0, 0.1), "key = 0: key must be a JAX random key"),
        (lambda key: stimulus.ornstein_uhlenbeck(key, 0.0, -1.0, 3.0, 1.0, 0.1), "sd = -1 pA: sd must be 0 pA or more"),
        (lambda key: stimulus.ornstein_uhlenbeck(key, 0.0, 1.0, 0.0, 1.0, 0.1), "tau = 0 ms: tau must be greater than"),
        (lambda _: stimulus.ramp(np.nan, 1.0, 1.0, 0.1), "start_value = nan pA: start_value must be finite"),
        (
            lambda _: stimulus.ramp(0.0, [1.0, 2.0], 1.0, 0.1),
            r"stop_value has shape \(2,\)",
        ),
        (lambda _: stimulus.step("1", 0.0, 1.0, 1.0, 0.1), "amplitude = '1': amplitude must be a number"),
    ],
)
def test_what_is_no_stimulus_is_refused(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make(jax.random.key(0))


def all_stimuli(key, value):
    return [
        stimulus.step(value, 1.0, 2.0, 10.0, 0.1),
        stimulus.ramp(0.0, value, 10.0, 0.1),
        stimulus.sinusoid(0.0, value, 40.0, 10.0, 0.1),
        stimulus.ornstein_uhlenbeck(key, value, 1.0, 3.0, 10.0, 0.1),
    ]


def test_whole_numbers_give_the_default_dtype(dtype):
    for current in all_stimuli(jax.random.key(7), 50):
        assert current.shape == (100,) and current.dtype == dtype


def test_no_duration_gives_no_current():
    noise = stimulus.ornstein_uhlenbeck(jax.random.key(9), 0.0, 1.0, 3.0, 0.0, 0.1)
    assert noise.shape == stimulus.ramp(0.0, 1.0, 0.0, 0.1).shape == (0,)


def test_arrays_keep_their_dtype():
    for current in all_stimuli(jax.random.key(7), jnp.asarray(50.0, jnp.float32)):
        assert current.dtype == jnp.float32


def test_half_precision_is_computed_in_single():
    for half in (jnp.float16, jnp.bfloat16):
        for current in all_stimuli(jax.random.key(7), jnp.asarray(50.0, half)):
            assert current.dtype == jnp.float32
    long = stimulus.sinusoid(jnp.float16(0.0), 1.0, jnp.float16(40.0), 1000.0, 0.1)
    # 250 rad at the end, known to 3e-5 in single precision: in half the phase would be off by 0.1.
    np.testing.assert_allclose(long[-100:], stimulus.sinusoid(0.0, 1.0, 40.0, 1000.0, 0.1)[-100:], rtol=0, atol=1e-4)


def test_a_key_gives_the_same_noise_in_both_precisions():
    single, double = (stimulus.ornstein_uhlenbeck(jax.random.key(1), x, 2.0, 3.0, 10.0, 0.1) for x in (F32(5.0), 5.0))
    np.testing.assert_allclose(single, double, rtol=0, atol=1e-5)  # 100 steps of 1e-7 of some 10 pA


def test_all_work_under_jit_and_equal_the_plain_call():
    for plain, jitted in zip(
        all_stimuli(jax.random.key(8), 50.0),
        jax.jit(all_stimuli)(jax.random.key(8), jnp.asarray(50.0)),
        strict=True,
    ):
        np.testing.assert_allclose(jitted, plain, rtol=1e-12, atol=1e-12)


def test_a_key_gives_the_same_noise_again_and_another_key_does_not():
    first, again, other = (stimulus.ornstein_uhlenbeck(jax.random.key(n), 0.0, 1.0, 3.0, 10.0, 0.1) for n in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
