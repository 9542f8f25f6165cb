"""E-prop: the gradient of a recurrent layer without its past, in memory that does not grow with the number of steps."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, PyTree

from jaxlif import checks
from jaxlif.compiled import compiled
from jaxlif.networks.feedback import Recurrent, RecurrentParams, moving_leaves, with_still
from jaxlif.networks.graph import Sequential
from jaxlif.networks.layers import Dense, DenseParams, signal
from jaxlif.neurons.adaptive import AdaptiveLIF
from jaxlif.neurons.cell import Cell, check_cell, kind_of, relax, state_dtype
from jaxlif.neurons.leaky import LeakyIntegrator
from jaxlif.neurons.lif import LIF
from jaxlif.neurons.resonant import ResonantLIF

NEURONS = (LIF, AdaptiveLIF, ResonantLIF)  # in which no neuron's state enters that of another
LAYERS = ((Dense,), (Recurrent, *NEURONS), (Dense,), (LeakyIntegrator,))


def eprop_loss(
    loss: Callable[[Any, Any], Array],
    network: Sequential,
    params: PyTree,
    inputs: Float[Array, "T num_in"],
    targets: PyTree,
) -> Float[Array, ""]:
    r"""Return :math:`L = \sum_n \ell(v_n, y_n)` of a network's readout, whose gradient in the parameters is e-prop's.

    .. math:: \frac{dL}{dw_{ij}} = \sum_n \sum_k \frac{\partial \ell}{\partial v^k_n} w_{jk}
        \sum_{m \le n} \kappa_{n-m}\, e^{ij}_m, \qquad e^{ij}_m = \frac{\partial z^j_m}{\partial w_{ij}}

    with :math:`\kappa` what the readout makes of one spike. The eligibility trace e, what spikes z of neuron j owe to
    one of its weights or parameters through its own past, is exact: membrane, adaptation, refractoriness and reset, as
    the neuron's own derivative has them. Dropped is what they owe to earlier spikes within the layer, which count as
    input. So the readout's gradient is exact, and without recurrence all of it.

    It is computed forwards, in memory for the traces, one a weight, whatever T; autodiff's grows with T and is less
    where T is below the number of inputs and neurons. To ``jax.grad``, ``jax.vmap``, :func:`jaxlif.fit` and ``train``
    this is a loss as any other.

    Args:
        loss: ``loss(v, target)``, a scalar, of the readout's voltage [K] and one step's target. It may close over data,
            not over anything in which a gradient is asked for.
        network: ``Sequential((Dense(), Recurrent(neuron), Dense(), LeakyIntegrator(dt)))``, or the neuron alone in
            its second place; the neuron a LIF, adaptive or resonant. Readouts that each have a ``tau_m`` of their own
            need traces each.
        params: of the network; a gradient in each.
        inputs: of the network. There is no gradient in them, nor in the targets, and asking for one is refused.
        targets: a pytree of arrays [T, ...], such as a label for every step.

    Raises:
        ValueError: for another network, by the name of its layer, or a gradient in inputs or targets.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import init_dense, init_recurrent
        >>> network = Sequential((Dense(), Recurrent(jl.LIF(dt=1.0)), Dense(), jl.LeakyIntegrator(dt=1.0)))
        >>> first, second, third = jax.random.split(jax.random.key(0), 3)
        >>> hidden = init_dense(first, 4, 8, gain=3.0), init_recurrent(second, 8)
        >>> params = (*hidden, init_dense(third, 8, 2), jl.LeakyParams())
        >>> gradient = jax.grad(eprop_loss, argnums=2)(
        ...     lambda v, y: jnp.sum((v - y) ** 2), network, params, jnp.ones((50, 4)), jnp.zeros((50, 2))
        ... )
        >>> gradient[1].weight.shape, bool(jnp.any(gradient[1].weight != 0.0))
        ((8, 8), True)

    Source: Bellec et al. 2020, doi:10.1038/s41467-020-17236-y, with symmetric feedback.
    """
    checks.function("loss", loss)
    _require_layers(network)
    inputs, targets = checks.input_arrays(inputs), jax.tree.map(jnp.asarray, targets)
    checks.length("inputs and targets", (inputs, targets), "steps")
    checks.check_params(params)
    check_cell(network, params)
    dtype = state_dtype(params)
    found: Array = _loss(loss, network, jax.tree.map(lambda x: jnp.asarray(x, dtype), params), inputs, targets)
    return found


def _require_layers(network: Any) -> None:
    """Refuse a network in which a neuron's state would follow another's, or the error came later."""
    rule = "e-prop takes a Sequential of Dense, Recurrent or a neuron, Dense, LeakyIntegrator"
    if type(network) is not Sequential or len(network.layers) != len(LAYERS):
        raise ValueError(f"network = {kind_of(network)} of {len(getattr(network, 'layers', ()))} layers: {rule}")
    for i, (layer, kinds) in enumerate(zip(network.layers, LAYERS, strict=True)):
        if type(layer) not in kinds:
            raise ValueError(f"layer {i} ({type(layer).__name__}): {rule}")
        if isinstance(layer, Recurrent) and type(layer.neuron) not in NEURONS:
            known = ", ".join(kind.__name__ for kind in NEURONS)
            raise ValueError(f"layer {i} (Recurrent of {type(layer.neuron).__name__}): e-prop takes neurons {known}")


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _loss(loss: Any, network: Sequential, params: Any, inputs: Array, targets: Any) -> Any:
    return _value(loss, network, params, inputs, targets)


@compiled(values=2, keep=16)
def _value(loss: Any, network: Sequential, params: Any, inputs: Array, targets: Any) -> Any:
    def _step(carry: tuple[Any, Array], x: tuple[Array, Any]) -> tuple[Any, None]:
        state, output = network.step(params, carry[0], x[0])
        return (state, carry[1] + _checked(loss)(output.output.v, x[1])), None

    start = network.init_state(params, inputs[0]), jnp.zeros((), state_dtype(params))
    return jax.lax.scan(_step, start, (inputs, targets))[0][1]


def _checked(loss: Any) -> Any:
    """Return the loss of a step, refusing what is no scalar."""

    def _of(v: Array, target: Any) -> Any:
        checks.scalar("the loss of a step", value := loss(v, target), jnp.floating)
        return value

    return _of


def _loss_jvp(loss: Any, network: Sequential, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    """Return the loss, and its tangent: e-prop's gradient times that of the parameters."""
    for name, dot in zip(("inputs", "targets"), tangents[1:], strict=True):
        if any(_moves(x) for x in jax.tree.leaves(dot)):
            raise ValueError(f"{name}: a gradient in them was asked for, and e-prop has one in the parameters alone")
    value, gradient = _value_and_gradient(loss, network, *primals)
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(tangents[0]), strict=True)
    return value, sum((jnp.vdot(g, dot) for g, dot in pairs if _moves(dot)), start=jnp.zeros_like(value))


def _moves(tangent: Any) -> bool:
    return not isinstance(tangent, jax.custom_derivatives.SymbolicZero)


_loss.defjvp(_loss_jvp, symbolic_zeros=True)


# --- forwards, without the past -----------------------------------------------------------------------------


class _Layer(NamedTuple):
    """The parameters of neurons, of the projection onto them, and the weights between them or None."""

    dense: DenseParams
    weight: Array | None
    neuron: Any

    def current(self, x: Array, spikes: Array) -> Array:
        """Return the current [N] under the input ``x`` and the neurons' own spikes of the step before."""
        current = Dense().apply(self.dense, x)
        return current if self.weight is None else current + spikes @ self.weight

    def sources(self, x: Array, spikes: Array) -> Array:
        """Return what the weights are multiplied with [R]: the input, 1 for a bias, the spikes of the step before."""
        one = [] if self.dense.bias is None else [jnp.ones((1,), spikes.dtype)]
        return jnp.concatenate([jnp.asarray(x, spikes.dtype), *one, *([] if self.weight is None else [spikes])])

    def gradient(self, rows: Array) -> "_Layer":
        """Return derivatives in the weights onto each neuron and in its own parameters, [R + P, N], in this form."""
        num_in, bias = self.dense.weight.shape[0], self.dense.bias is not None
        recurrent = 0 if self.weight is None else len(self.weight)
        weight, one, back, own = jnp.split(rows, np.cumsum([num_in, bias, recurrent]))
        leaves, form = jax.tree.flatten(self.neuron)
        # What all neurons share gets the sum.
        parts = [y if x.shape == y.shape else y.sum().reshape(x.shape) for x, y in zip(leaves, own, strict=True)]
        dense = DenseParams(weight=weight, bias=one[0] if bias else None)
        return _Layer(dense, back if recurrent else None, jax.tree.unflatten(form, parts))


class _Point(NamedTuple):
    """Neurons between two steps: their state, what they passed on [N], and their traces, the derivatives of the state's
    floating arrays in the weights onto each neuron [R, N], one source a row, and in its own parameters [P, N].

    A row holds all neurons at once: what moves all weights of a source moves each neuron by its own weight alone.
    """

    state: Any
    signal: Array
    by_weights: list[Array]
    by_own: list[Array]


def _start(cell: Cell, layer: _Layer, x: Array) -> _Point:
    """Return silent neurons before the first step, in which no weight has acted."""
    silent = jnp.zeros(layer.dense.weight.shape[1], layer.dense.weight.dtype)

    def _tangents(dot: Any) -> list[Array]:
        return moving_leaves(jax.jvp(lambda p: cell.init_state(p, silent), (layer.neuron,), (dot,))[1])

    own, rows = jax.vmap(_tangents)(_units(layer.neuron)), layer.sources(x, silent).size
    weights = [jnp.zeros((rows, *y.shape[1:]), y.dtype) for y in own]
    return _Point(cell.init_state(layer.neuron, silent), silent, weights, own)


def _advance(cell: Cell, layer: _Layer, point: _Point, x: Array) -> tuple[_Point, Array]:
    """Step neurons and traces under the input ``x``; return them and the derivatives of the signal [R + P, N]."""
    current, sources = layer.current(x, point.signal), layer.sources(x, point.signal)

    def _tangents(params_dot: Any, state_dot: list[Array], current_dot: Array) -> tuple[list[Array], Array]:
        dots = params_dot, with_still(point.state, state_dot), current_dot
        after, output = jax.jvp(cell.step, (layer.neuron, point.state, current), dots)[1]
        return moving_leaves(after), signal(output)

    still, none = jax.tree.map(jnp.zeros_like, layer.neuron), jnp.zeros_like(current)
    each = jnp.outer(sources, jnp.ones_like(current))
    by_weights, first = jax.vmap(partial(_tangents, still))(point.by_weights, each)
    by_own, last = jax.vmap(partial(_tangents, current_dot=none))(_units(layer.neuron), point.by_own)
    state, output = cell.step(layer.neuron, point.state, current)
    return _Point(state, signal(output), by_weights, by_own), jnp.concatenate([first, last])


def _units(params: Any) -> Any:
    """Return tangents of which the k-th moves parameter k, of all neurons, by 1."""
    leaves, form = jax.tree.flatten(params)
    units = [jnp.zeros((len(leaves), *x.shape), x.dtype).at[i].set(1.0) for i, x in enumerate(leaves)]
    return jax.tree.unflatten(form, units)


@compiled(values=2, keep=16)
def _value_and_gradient(loss: Any, network: Sequential, params: Any, inputs: Array, targets: Any) -> tuple[Any, Any]:
    """Return the loss and its gradient in the form of ``params``."""
    cell, own = network.layers[1], params[1]
    readout: Any = network.layers[3]
    hidden, last = _Layer(params[0], None, own), _Layer(params[2], None, params[3])
    if isinstance(cell, Recurrent):
        cell, hidden = cell.neuron, _Layer(params[0], own.weight, own.neuron)
    taus = last.neuron.tau_m.reshape(-1, 1, 1)

    def _step(carry: Any, x: tuple[Array, Any]) -> tuple[Any, None]:
        neurons, voltages, filtered, totals = carry
        neurons, moved = _advance(cell, hidden, neurons, x[0])
        voltages, shown = _advance(readout, last, voltages, neurons.signal)
        # What the readout makes of a spike later is a response that every trace can be filtered with at once.
        filtered = relax(filtered, moved[None], taus, readout.dt)
        value, error = jax.value_and_grad(_checked(loss))(voltages.signal, x[1])
        learning = (error * last.neuron.r_m)[:, None] * last.dense.weight.T
        learning = learning if len(taus) > 1 else learning.sum(axis=0, keepdims=True)
        parts = value, jnp.einsum("kn,krn->rn", learning, filtered), error[None] * shown
        return (neurons, voltages, filtered, jax.tree.map(jnp.add, totals, parts)), None

    neurons = _start(cell, hidden, inputs[0])
    voltages = _start(readout, last, neurons.signal)
    zeros = [jnp.zeros((_rows(point), *point.signal.shape), point.signal.dtype) for point in (neurons, voltages)]
    start = neurons, voltages, jnp.stack([zeros[0]] * len(taus)), (jnp.zeros((), zeros[0].dtype), *zeros)
    value, *totals = jax.lax.scan(_step, start, (inputs, targets))[0][3]
    first, second = hidden.gradient(totals[0]), last.gradient(totals[1])
    own = first.neuron if first.weight is None else RecurrentParams(neuron=first.neuron, weight=first.weight)
    return value, (first.dense, own, second.dense, second.neuron)


def _rows(point: _Point) -> int:
    return len(point.by_weights[0]) + len(point.by_own[0])
