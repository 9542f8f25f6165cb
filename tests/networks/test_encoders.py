"""Encoders: exact spikes, exact edges, refused values; level crossings against a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlif.networks.encoders import latency_code, level_crossing, rate_code


def test_latency_is_one_spike_earlier_for_larger_values(dtype):
    values = jnp.array([[1.0, 0.75], [0.5, 0.0]], dtype)
    spikes = latency_code(values, 5)
    assert spikes.shape == (5, 2, 2)
    assert spikes.dtype == dtype
    np.testing.assert_array_equal(spikes.argmax(axis=0), [[0, 1], [2, 4]])
    np.testing.assert_array_equal(spikes.sum(axis=0), np.ones((2, 2)))


def test_latency_of_one_step_spikes_in_it():
    np.testing.assert_array_equal(latency_code(jnp.array([0.0, 1.0]), 1), [[1.0, 1.0]])


def test_rate_is_certain_at_the_edges(dtype):
    spikes = rate_code(jax.random.key(0), jnp.array([0.0, 1.0], dtype), 100)
    assert spikes.dtype == dtype
    np.testing.assert_array_equal(spikes, np.tile([0.0, 1.0], (100, 1)))


def test_rate_draws_independent_spikes_of_the_given_probability():
    values = jnp.array([0.1, 0.5, 0.5, 0.5, 0.9])  # the length is odd: neighbours of a random word change places
    spikes = rate_code(jax.random.key(1), values, 10_000)
    # Five standard errors of a mean, and of a correlation between independent trains.
    np.testing.assert_array_less(jnp.abs(spikes.mean(axis=0) - values), 5 * (values * (1 - values) / 10_000) ** 0.5)
    assert set(np.unique(spikes)) == {0.0, 1.0}
    assert np.abs(np.corrcoef(spikes[:, 1:4].T) - np.eye(3)).max() < 0.05
    assert abs(np.corrcoef(spikes[1:, 1], spikes[:-1, 1])[0, 1]) < 0.05


def test_rates_between_the_levels_of_sixteen_bits_are_kept():
    """0.4 of a level: cut off there would be no spike, rounded up 92, and 36 are expected; 300 steps take two draws."""
    spikes = rate_code(jax.random.key(3), jnp.full(20_000, 0.4 / 2**16), 300)
    assert abs(float(spikes.sum()) - 36.6) < 5 * 36.6**0.5


def test_the_key_decides():
    values = jnp.full(50, 0.5)
    first, again, other = (rate_code(jax.random.key(k), values, 10) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_batches_by_vmap_and_jit():
    values = jnp.array([[0.2, 0.4], [0.6, 0.8]])
    np.testing.assert_array_equal(
        jax.vmap(lambda x: latency_code(x, 6))(values), jnp.stack([latency_code(x, 6) for x in values])
    )
    np.testing.assert_array_equal(jax.jit(latency_code, static_argnums=1)(values, 6), latency_code(values, 6))


@pytest.mark.parametrize("encode", [latency_code, lambda x, steps: rate_code(jax.random.key(0), x, steps)])
def test_refusals(encode):
    with pytest.raises(ValueError, match=r"^values\[1\] = 1.5: values must lie between 0 and 1$"):
        encode(np.array([0.0, 1.5]), 5)
    with pytest.raises(ValueError, match="values = -0.1: values must lie between 0 and 1"):
        encode(-0.1, 5)
    with pytest.raises(ValueError, match=r"values\[0\] = nan"):
        encode(jnp.array([jnp.nan]), 5)
    with pytest.raises(ValueError, match="num_steps = 0: num_steps must be a whole number, 1 or more"):
        encode(jnp.array([0.5]), 0)


def level_crossing_by_loop(x, step):
    """Follow each channel by hand: a level moves by whole steps towards the value, one event for each."""
    events = np.zeros((len(x), 2 * x.shape[1]))
    for c in range(x.shape[1]):
        level = 0
        for n in range(len(x)):
            height = (x[n, c] - x[0, c]) / step[c]
            while height - level >= 1:
                level += 1
                events[n, c] += 1
            while height - level <= -1:
                level -= 1
                events[n, x.shape[1] + c] += 1
    return events


# Quarters: exact in either precision, and often exactly on a level.
WALKS = np.cumsum(np.random.default_rng(2).integers(-6, 7, (200, 2)) / 4.0, axis=0)


@pytest.mark.parametrize("step", [(0.5, 1.0), (2.0, 0.25)])
def test_level_crossing_equals_a_loop(dtype, step):
    events = level_crossing(jnp.asarray(WALKS, dtype), np.array(step, dtype))
    assert events.dtype == dtype
    np.testing.assert_array_equal(events, level_crossing_by_loop(WALKS, step))


def test_a_staircase_of_whole_steps_gives_one_event_a_step(dtype):
    """What rounding keeps from a level has reached it: in either precision, from any start, up and down."""
    for start, step in ((0.0, 0.1), (3.7, 0.3), (-70.0, 0.7)):
        stairs = np.asarray(start, dtype) + np.arange(1000).astype(dtype) * np.asarray(step, dtype)
        up, down = (np.asarray(jax.jit(level_crossing)(x, step))[1:] for x in (stairs, stairs[::-1]))
        np.testing.assert_array_equal(up, np.tile([1.0, 0.0], (999, 1)))
        np.testing.assert_array_equal(down, up[:, ::-1])


def test_level_crossing_keeps_within_a_step_for_ever():
    """The events rebuild the waveform to less than a step, after ten thousand steps as after the first."""
    walk = 0.1 * np.cumsum(np.random.default_rng(3).normal(size=(10_000, 2)), axis=0)
    events = np.asarray(level_crossing(walk, 0.3))
    rebuilt = walk[0] + 0.3 * np.cumsum(events[:, :2] - events[:, 2:], axis=0)
    assert np.abs(rebuilt - walk).max() < 0.3 + 1e-12  # rounding of the sums
    assert (events[:, :2] * events[:, 2:] == 0).all(), "no channel moves both ways in a step"


def test_level_crossing_of_one_channel_of_a_batch_and_without_a_gradient():
    batch = np.stack([WALKS, -WALKS])
    up_and_down = jax.vmap(lambda x: level_crossing(x, 1.0))(batch)
    np.testing.assert_array_equal(up_and_down[1], np.roll(up_and_down[0], 2, axis=1), "upside down, ups are downs")
    np.testing.assert_array_equal(level_crossing(WALKS[:, 0], 1.0), up_and_down[0][:, [0, 2]])
    assert (jax.grad(lambda x: level_crossing(x, 1.0).sum())(jnp.asarray(WALKS)) == 0.0).all()


@pytest.mark.parametrize(
    ("values", "step", "message"),
    [
        (np.zeros((2, 3, 4)), 1.0, r"^values have shape \[2, 3, 4\]: they must be \[T\] or \[T, C\]"),
        (np.zeros((0, 3)), 1.0, r"^values have shape \[0, 3\]"),
        (np.array([0.0, np.nan]), 1.0, r"^values\[1\] = nan: values must be finite"),
        (np.zeros((4, 2)), np.array([1.0, 0.0]), r"^step\[1\] = 0: step must be greater than 0"),
    ],
)
def test_level_crossing_refuses(values, step, message):
    with pytest.raises(ValueError, match=message):
        level_crossing(values, step)
