"""Gradients through traces of a million steps: finite, no larger than through a tenth of them, and right."""

from dataclasses import fields, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl

DT, LONG, SHORT = 0.1, 1_000_000, 100_000
PARAMS = jl.LIFParams(t_ref=2.0)
NAMES = [field.name for field in fields(PARAMS)]
SURROGATES = (jl.SuperSpike(), jl.Arctan(), jl.Sigmoid(), jl.Triangular(), jl.Gaussian(), jl.MultiGaussian())
PRECISE, PLAIN, *OTHERS = [jl.PreciseLIF(dt=DT), *(jl.LIF(dt=DT, surrogate=s) for s in SURROGATES)]
CASES = [(cell, dtype) for cell in (PRECISE, PLAIN) for dtype in ("float64", "float32")]
# In single precision an exploding factor overflows first.
CASES += [(cell, "float32") for cell in OTHERS]
IDS = [f"{type(getattr(cell, 'surrogate', None)).__name__}-{dtype}" for cell, dtype in CASES]


@pytest.fixture(scope="module")
def current():
    """100 s of a current whose fluctuations reach threshold some fifty times a second, pA."""
    return jl.stimulus.ornstein_uhlenbeck(jax.random.key(0), 170.0, 120.0, 5.0, LONG * DT, DT)


def means(cell, params, current):
    """Return the mean voltage, mV, and the rate, Hz."""
    _, output = jl.simulate(cell, params, current)
    return jnp.stack([jnp.mean(output.v), 1000.0 / DT * jnp.mean(output.spikes)])


def gradients(cell, current):
    """Return the gradients of both means per relative change of each parameter, [2, P]."""
    jacobian = jax.jacrev(lambda p: means(cell, p, current))(PARAMS)
    return np.stack([np.asarray(getattr(jacobian, name)) * abs(getattr(PARAMS, name)) for name in NAMES], axis=1)


@pytest.mark.parametrize(("cell", "dtype"), CASES, ids=IDS)
def test_the_gradient_of_a_mean_does_not_grow_with_the_trace(cell, dtype, current):
    """A mean over a stationary trace has a gradient that settles; an exploding one would grow beyond all bounds.

    The next test shows one. Ten seconds hold hundreds of spikes, whose own scatter moves the norm by a tenth: a third
    is far from chance, and far from any growth.
    """
    with jax.enable_x64(dtype == "float64"):
        current = jnp.asarray(np.asarray(current), dtype)
        short, long = gradients(cell, current[:SHORT]), gradients(cell, current)
    assert long.dtype == dtype and np.isfinite(long).all()
    ratio = np.linalg.norm(long, axis=1) / np.maximum(np.linalg.norm(short, axis=1), 1e-30)
    if isinstance(cell, jl.PreciseLIF):
        assert (long[1] == 0).all()  # a count has no exact gradient
        ratio = ratio[:1]
    assert ((ratio > 0.75) & (ratio < 1.33)).all(), ratio


def test_an_attached_reset_does_explode(current):
    """The comparison above can fail: the same neuron, with a slower membrane, a higher reset, the surrogate let in."""
    attached = jl.LIF(dt=DT, surrogate=jl.Gaussian(), detach_reset=False)
    params = replace(PARAMS, v_reset=-58.0, tau_m=20.0)
    gradient = jax.grad(lambda p, x: means(attached, p, x)[0])
    short, long = (abs(float(gradient(params, current[:n]).v_rest)) for n in (1_000, 8_000))
    assert np.isfinite(short) and long > 1e6 * short


def test_the_exact_gradient_equals_a_difference_after_a_million_steps(current):
    """Along r_m, the scale of the input, by 1e-8: ten times that already moves one of the 5590 spikes over the edge.

    The difference of the means is then some 5e-7 mV, known to the 1e-14 mV of a mean of 60 mV times a few roundings:
    2e-8 of it were found, and 1e-6 is allowed.
    """
    cell = jl.PreciseLIF(dt=DT)

    @jax.jit
    def at(gain):
        return means(cell, replace(PARAMS, r_m=PARAMS.r_m * gain), current)

    h = 1e-8
    up, down = at(1.0 + h), at(1.0 - h)
    assert float(up[1]) == float(down[1])
    exact = gradients(cell, current)[0, NAMES.index("r_m")]
    assert float(up[0] - down[0]) / (2.0 * h) == pytest.approx(exact, rel=1e-6)
