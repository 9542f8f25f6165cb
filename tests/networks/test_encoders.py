"""Encoders: exact spikes, exact edges, refused values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlif.networks import latency_code, rate_code


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
    values = jnp.array([0.1, 0.5, 0.5, 0.9])
    spikes = rate_code(jax.random.key(1), values, 10_000)
    # Five standard errors of a mean, and of a correlation between independent trains.
    np.testing.assert_array_less(jnp.abs(spikes.mean(axis=0) - values), 5 * (values * (1 - values) / 10_000) ** 0.5)
    assert set(np.unique(spikes)) == {0.0, 1.0}
    assert abs(np.corrcoef(spikes[:, 1], spikes[:, 2])[0, 1]) < 0.05
    assert abs(np.corrcoef(spikes[1:, 1], spikes[:-1, 1])[0, 1]) < 0.05


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
    with pytest.raises(ValueError, match="num_steps = 0: num_steps must be 1 or more"):
        encode(jnp.array([0.5]), 0)
