"""One kernel for all steps, interpreted where there is no card: it is the neuron's scan, which is the oracle here."""

import sys
from dataclasses import dataclass
from functools import partial

import jax
import jax.experimental.pallas
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.networks import Dense, Fused, Recurrent, Sequential, init_dense, init_neurons
from jaxlif.networks.fused import fused_scan
from jaxlif.neurons.cell import prepared
from jaxlif.simulation import scan_cell

SPREAD = np.linspace(0.8, 1.2, 130)  # neurons: more than one block, and no whole number of them
PLAIN = {"tau_m": 10.0 * SPREAD, "r_m": 0.1, "v_rest": -70.0, "v_th": -55.0 - SPREAD, "v_reset": -65.0}
LIF, LIFS = jl.LIF(dt=1.0), jl.LIFParams(**PLAIN, t_ref=2.0 * SPREAD)
ADAPTIVE = jl.AdaptiveLIFParams(
    **PLAIN, t_ref=2.0 * SPREAD, eta=(40.0,), tau_eta=(30.0 * SPREAD,), gamma=(3.0 * SPREAD,), tau_gamma=(20.0,)
)
# T steps are turns of four and what is left over: here two and one, none and one. A precision each.
CASES = {
    "adaptive": (jl.AdaptiveLIF(dt=1.0), ADAPTIVE, 9, "float64"),
    "subtract, attached": (
        jl.LIF(dt=1.0, reset="subtract", detach_reset=False),
        jl.LIFParams(**PLAIN, t_ref=0.0),
        1,
        "float32",
    ),
    "leaky": (jl.LeakyIntegrator(dt=1.0), jl.LeakyParams(tau_m=10.0 * SPREAD), 1, "float32"),
}


def passed(cell, run, weights, params, state, inputs):
    """Return a loss in every number of a batch's output and final state, and these."""
    ended = jax.vmap(partial(run, prepared(cell, params)), in_axes=(None, 0))(state, inputs)
    numbers = [y for y in jax.tree.leaves(ended) if jnp.issubdtype(y.dtype, jnp.floating)]
    return sum(jnp.vdot(y, w[: y.size].reshape(y.shape)) for y, w in zip(numbers, weights, strict=False)), ended


@pytest.mark.parametrize("name", CASES)
def test_the_kernel_is_the_scan(name):
    """Steps and derivatives are those of the neuron, taken in the same order; compilers round each their own way."""
    cell, params, steps, dtype = CASES[name]
    rng = np.random.default_rng(3)
    numbers = params, rng.normal(250.0, 150.0, (2, steps, 130)), rng.normal(size=(8, 2 * 9 * 130))
    params, inputs, weights = jax.tree.map(partial(jnp.asarray, dtype=dtype), numbers)
    state = cell.init_state(params, inputs[0, 0])
    state = state._replace(v=state.v + jnp.linspace(0.0, 14.0, 130, dtype=dtype))  # some spike soon

    def _found(run):
        loss = partial(passed, cell, partial(run, cell), weights)
        both = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True, allow_int=True)).lower(params, state, inputs)
        quick = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
        (_, ended), gradient = both.compile(quick)(params, state, inputs)
        return ended, [x for x in jax.tree.leaves(gradient) if x.dtype != jax.dtypes.float0]

    ((final, output), gradient), found = _found(scan_cell), _found(fused_scan)
    if name != "leaky":
        assert 20 < output.spikes.sum() < output.spikes.size
        np.testing.assert_array_equal(found[0][1].spikes, output.spikes)
        np.testing.assert_array_equal(found[0][0].refractory, final.refractory)
    tolerance = 1e-12 if dtype == "float64" else 1e-5  # roundings of 1e-16 and 6e-8, of voltages some 100 mV large
    for a, b in zip(jax.tree.leaves(found[0]), jax.tree.leaves((final, output)), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=100.0 * tolerance)
    for a, b in zip(found[1], gradient, strict=True):  # sums over up to 2 x 9 x 130 terms of both signs
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * float(jnp.abs(b).max()))
    assert sum(float(jnp.abs(x).max()) > 0.0 for x in gradient) >= len(gradient) - 3  # t_ref, noise


def test_one_neuron_by_itself_and_numbers_of_python():
    state, x = LIF.init_state(jl.LIFParams(), jnp.zeros(())), jnp.full(3, 900.0)
    final, output = fused_scan(LIF, jl.LIFParams(), state, x)
    wanted, scanned = jl.simulate(LIF, jl.LIFParams(), x)
    assert scanned.spikes.sum() > 0
    np.testing.assert_array_equal(output.spikes, scanned.spikes)
    np.testing.assert_allclose(output.v, scanned.v, rtol=1e-14)
    assert final.refractory == wanted.refractory and final.v.shape == ()


NETWORK = Sequential((Dense(), Fused(jl.LIF(dt=1.0))))
PARAMS = init_dense(jax.random.key(0), 3, 40, gain=4.0), init_neurons(40)


# JAX has announced to drop the compiler that the kernel is for.
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend:DeprecationWarning")
def test_on_a_gpu_the_loops_are_kernels_and_spikes_leave_as_bits(monkeypatch):
    """Lowering needs no card. Beside one, the processor interprets the kernels, with the gradient of the scan."""

    def loss(params):
        def _one(x):
            return NETWORK.scan(params, NETWORK.init_state(params, x[0]), x)[1].output.spikes.sum()

        return jax.vmap(_one, in_axes=1)(jnp.ones((10, 2, 3))).sum()

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    traced = jax.jit(jax.grad(loss)).trace(PARAMS)
    card, host = (traced.lower(lowering_platforms=(name,)).as_text() for name in ("cuda", "cpu"))
    kernels = [line for line in card.splitlines() if "xla.gpu.triton" in line]
    assert len(kernels) == 2 and "stablehlo.while" not in card
    assert sum("tensor<2x3x40xui8>" in line for line in kernels) == 1  # a byte for four steps
    read = [line.rsplit(" : (", 1)[1].split("->")[0].count("tensor<2x10x40xf64>") for line in kernels]
    assert read == [1, 2]  # the input, and beside it the cotangent of its spikes alone
    assert "triton" not in host


def test_forward_mode_is_the_scan_s_alone():
    state, x = LIF.init_state(LIFS, SPREAD), jnp.ones((1, 130))
    kernel = partial(fused_scan, LIF, LIFS, state)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jit(lambda x: jax.jvp(lambda x: kernel(x)[1].v, (x,), (x,))).lower(x)
    by_scan = partial(Fused(LIF).scan, LIFS, state)
    assert jax.eval_shape(lambda x: jax.jvp(lambda x: by_scan(x)[1].v, (x,), (x,)), x)[1].shape == (1, 130)


@dataclass(frozen=True)
class Averaged:
    """Neurons that a block of them would take to another mean."""

    def init_state(self, params, x):
        return jl.LeakyIntegrator().init_state(params, x)

    def step(self, params, state, x):
        return jl.LeakyIntegrator().step(params, state, x - jnp.mean(x))


def squared_sum(x):
    """Stand for a surrogate that looks at all neurons."""
    return x * jnp.cumsum(x)


REFUSED = {
    "mean": (Averaged(), jl.LeakyParams(), "neuron = Averaged: Fused needs a cell .* uses reduce_sum"),
    "surrogate": (jl.LIF(surrogate=squared_sum), jl.LIFParams(), "neuron = LIF: .* uses cumsum"),
    "search": (jl.AdEx(), jl.AdExParams(), "neuron = AdEx: .*while"),
    "no state": (Dense(), PARAMS[0], r"neuron = Dense: params of shape \(3, 40\) beside a state of \(\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_cell_that_is_more_than_its_neurons_is_refused(name):
    cell, params, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        jl.simulate(Fused(cell), params, jnp.ones((4, 3)))


def test_what_needs_its_neurons_between_steps_is_refused_when_it_is_made():
    with pytest.raises(ValueError, match="neuron = Fused: Recurrent feeds spikes back, .* give it the neuron itself"):
        Recurrent(Fused(LIF))
    with pytest.raises(ValueError, match="neuron = EscapeNoise: Fused passes an array, and EscapeNoise takes a Noisy"):
        Fused(jl.EscapeNoise(jl.AdaptiveLIF()))


def test_a_jax_without_the_compiler_is_named(monkeypatch):
    monkeypatch.delattr(jax.experimental.pallas, "triton", raising=False)
    monkeypatch.setitem(sys.modules, "jax.experimental.pallas.triton", None)
    with pytest.raises(ImportError, match="Fused: JAX .* has no Triton in Pallas; take the neuron itself"):
        fused_scan(LIF, LIFS, LIF.init_state(LIFS, SPREAD), jnp.ones((1, 130)))
