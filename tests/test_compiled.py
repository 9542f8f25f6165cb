"""Programs of values: compiled once, and forgotten with all that the values hold once enough others were used."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlif as jl
from jaxlif.compiled import compiled
from jaxlif.fitting import fit as fit_module
from jaxlif.networks import epoch, flight_record, liveliness, train


class Held:
    """Something large that a closure holds."""

    def __init__(self):
        self.array = np.ones(1000)


START, FREE, SGD, KEY = {"w": jnp.asarray(0.0)}, {"w": jl.REAL}, optax.sgd(0.1), jax.random.key(0)
LOUD = jl.LIFParams(), jnp.full((1, 20, 1), 300.0)


def fit(loss):
    jl.fit(lambda p: loss(p["w"]), START, FREE, optimizer=SGD, num_steps=2)


def multistart(loss):
    jl.multistart(lambda p: loss(p["w"]), START, FREE, key=KEY, num_starts=2, optimizer=SGD, num_steps=2)


def trained(loss):
    train(
        lambda p, batch, key: loss(p["w"]), START, FREE, jnp.ones(4), optimizer=SGD, epochs=1, batch_size=2, key=KEY,
        validation=jnp.ones(4),
    )  # fmt: skip


def recorded(loss):
    flight_record(jl.LIF(dt=1.0), *LOUD, lambda output: loss(output.v.mean()))


CALLS = {
    "fit": (fit, fit_module._advance),
    "multistart": (multistart, fit_module._advance),
    "train": (trained, epoch.run_epoch),
    "flight_record": (recorded, liveliness._record),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_a_loss_holds_is_let_go(name):
    call, function = CALLS[name]
    keep, held = function.program.cache_info().maxsize, []
    for _ in range(keep + 1):
        large = Held()
        held.append(weakref.ref(large))
        call(lambda x, large=large: jnp.mean((x - large.array) ** 2))
        del large
    gc.collect()
    assert [ref() is None for ref in held[-2:]] == [False, False] and held[0]() is None


def test_a_value_compiles_once_until_others_take_its_place():
    traced = []

    @compiled(values=2, keep=2)
    def power(base, exponent, x):
        traced.append((base, exponent))
        return base * x**exponent

    x = jnp.arange(3.0)
    for _ in range(3):
        np.testing.assert_array_equal(power(2.0, 3, x), 2.0 * np.arange(3.0) ** 3)
        np.testing.assert_array_equal(power(2.0, 2, x), 2.0 * np.arange(3.0) ** 2)
    assert traced == [(2.0, 3), (2.0, 2)]
    power(1.0, 1, x)
    power(2.0, 2, x)
    assert len(traced) == 3
    power(2.0, 3, x)
    assert traced[3:] == [(2.0, 3)]
    with pytest.raises(TypeError, match="unhashable"):
        power([1.0], 1, x)
