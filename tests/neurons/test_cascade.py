"""Low-pass filters in a row against divided differences in 150 digits."""

from decimal import Decimal, getcontext

import jax
import jax.numpy as jnp
import numpy as np

from jaxlif.neurons.cascade import cascade

getcontext().prec = 150
RNG = np.random.default_rng(0)


def divided(s, rates):
    """Return s^(n-1) times the divided difference of exp, equal rates apart by 1e-25 of themselves."""
    rates = [Decimal(float(r)) * (1 + Decimal(i) / 10**25) + Decimal(i + 1) / 10**30 for i, r in enumerate(rates)]
    x = [-r * Decimal(float(s)) for r in rates]
    total = Decimal(0)
    for i, a in enumerate(x):
        product = Decimal(1)
        for b in x[:i] + x[i + 1 :]:
            product *= a - b
        total += a.exp() / product
    return float(total * Decimal(float(s)) ** (len(x) - 1))


def drawn(n):
    """Return times and rates: equal, apart by 1e-14 to 30 times themselves, and 0."""
    base = 10 ** RNG.uniform(-2.5, 1.0, (80, 1))
    rates = base * (1.0 + 10 ** RNG.uniform(-14.0, 1.5, (80, n)) * RNG.choice([0, 1, 1], (80, n)))
    rates[:10, 0] = 0.0
    return 10 ** RNG.uniform(-2.0, 0.5, 80), rates


def test_values_and_gradients_keep_their_digits(dtype):
    """The derivative in a rate is the divided difference with that rate twice, negative."""
    for n in (2, 3):
        s, rates = drawn(n)
        value, slope = jax.jit(jax.vmap(jax.value_and_grad(lambda r, s: cascade(s, *r))))(
            jnp.asarray(rates, dtype), jnp.asarray(s, dtype)
        )
        expected = [divided(t, row) for t, row in zip(s, rates, strict=True)]
        slopes = [[-divided(t, [*row, r]) for r in row] for t, row in zip(s, rates, strict=True)]
        # Rounding of r s alone is worth r s eps, with r s up to 100 or more; the smallest are below single precision.
        exponent = 1.0 + (rates * s[:, None]).min(axis=1)
        rtol, seen = {"float64": (5e-14, 0.0), "float32": (2e-5, 1e-30)}[dtype]
        kept = np.array(expected) > seen
        assert kept.sum() > 60
        assert (np.abs(np.asarray(value, float) / expected - 1.0) < rtol * exponent)[kept].all()
        error = np.abs(np.asarray(slope, float) / slopes - 1.0).max(axis=1)
        assert (error < rtol * exponent)[kept].all()
