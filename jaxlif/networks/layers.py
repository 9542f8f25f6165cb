"""Layers of a network: cells like any other, chained by :class:`Sequential`.

Networks use the neuron in normalised units (rest 0, threshold 1, resistance 1): weights are then currents in
units of the rheobase, and times stay in ms. Code is written for one sample; ``jax.vmap`` makes batches.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.checks import check_params, concrete, floats, number, numbers, random_key, require, require_params, whole
from jaxlif.networks.backward import scan_recurrent, worth_recomputing
from jaxlif.networks.precision import product, require_matmul
from jaxlif.neurons.cell import Cell, check_cell, check_inputs, prepared, require_array_input
from jaxlif.neurons.lif import LIFParams
from jaxlif.simulation import scan_cell


def signal(output: Any) -> Array:
    """Return what a layer passes on to the next: its spikes where it has any, else its voltage, else itself.

    Args:
        output: a named tuple with ``spikes`` or ``v``, an array, or a :class:`NetworkOutput`, of which the last
            layer counts.

    Returns:
        The array that the next layer takes, of any shape.

    Example:
        >>> from jaxlif.neurons import LeakyOutput
        >>> float(signal(LeakyOutput(v=jnp.asarray(0.5))))
        0.5
    """
    if isinstance(output, NetworkOutput):
        return signal(output.output)
    return getattr(output, "spikes", getattr(output, "v", output))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class DenseParams:
    """Parameters of a dense projection.

    Args:
        weight: [num_in, num_out], from row to column, current per unit of input.
        bias: constant current [num_out], or None.

    Example:
        >>> DenseParams(weight=jnp.ones((3, 2))).bias is None
        True
    """

    weight: Array
    bias: Array | None = None

    def check(self) -> None:
        """Raise ValueError where a shape or a concrete value breaks its rule."""
        floats("weight", self.weight, (None, None), "[num_in, num_out]")
        if self.bias is not None:
            floats("bias", self.bias, self.weight.shape[1:], f"[{self.weight.shape[1]}], one for each output")


@dataclass(frozen=True)
class Dense:
    r"""An all-to-all projection without memory: :math:`y = x W + b`, over the whole time axis as one matmul.

    A simulation in chunks equals the whole to rounding, not bitwise: a matmul may sum in another order.

    Args:
        matmul: dtype of the product's factors, such as "bfloat16", which accelerators multiply several times faster;
            sums, outputs and parameters keep the weight's. None for the weight's own.

    Raises:
        ValueError: for another matmul.

    Example:
        >>> params = DenseParams(weight=jnp.array([[1.0], [2.0]]), bias=jnp.array([0.5]))
        >>> _, y = Dense().step(params, (), jnp.array([1.0, 1.0]))
        >>> y.tolist()
        [3.5]
    """

    matmul: str | None = None

    def __post_init__(self) -> None:
        require_matmul(self.matmul)

    def check(self, params: DenseParams) -> None:
        """Raise ValueError for parameters of another kind."""
        require_params(self, params, DenseParams)

    def init_state(self, params: DenseParams, x: Array) -> tuple[()]:
        """Return nothing: a projection remembers nothing."""
        return ()

    def step(self, params: DenseParams, state: tuple[()], x: Array) -> tuple[tuple[()], Array]:
        """Project ``x`` [num_in] to [num_out]; spikes of any dtype are cast to the weight's."""
        _require_inputs(params.weight, x)
        y = product(x, params.weight, self.matmul)
        return (), y if params.bias is None else y + params.bias

    def scan(self, params: DenseParams, state: tuple[()], inputs: Array) -> tuple[tuple[()], Array]:
        """Project ``inputs`` [T, num_in] to [T, num_out]."""
        return (), jax.vmap(lambda x: self.step(params, (), x)[1])(inputs)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class RecurrentParams:
    """Parameters of a layer of neurons that project to one another.

    Args:
        neuron: the neuron's own parameters, each leaf a scalar or [N].
        weight: [N, N], from row to column, current per spike of the step before.
    """

    neuron: Any
    weight: Array

    def check(self) -> None:
        """Raise ValueError where a shape or a concrete value breaks its rule."""
        check_recurrence(self)


class RecurrentState(NamedTuple):
    """The neurons' state, and their spikes [N] of the step before."""

    neuron: Any
    spikes: Array


@dataclass(frozen=True)
class Recurrent:
    r"""Neurons that drive one another one step later: :math:`I_n = x_n + s_{n-1} W`.

    The input is a current [N]: put a :class:`Dense` before it, whose matmul then stays outside the loop over
    time.

    Args:
        neuron: a spiking cell whose input is a current [N].
        matmul: dtype of the factors of :math:`s W`, as for :class:`Dense`; the neurons' state keeps its own.

    Raises:
        ValueError: for another matmul, or a neuron that takes no array or has no spikes.

    Example:
        >>> from jaxlif.neurons import LIF
        >>> cell, params = Recurrent(LIF(dt=1.0)), init_recurrent(jax.random.key(0), 3)
        >>> x = jnp.array([0.0, 50.0, 0.0])
        >>> cell.step(params, cell.init_state(params, x), x)[1].spikes.tolist()
        [0.0, 1.0, 0.0]
    """

    neuron: Cell
    matmul: str | None = None

    def __post_init__(self) -> None:
        require_matmul(self.matmul)
        require_drivable(self, self.neuron)

    def check(self, params: RecurrentParams) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of the neuron."""
        require_params(self, params, RecurrentParams)
        check_cell(self.neuron, params.neuron)
        require_weights_for(self.neuron, params)

    def prepare(self, params: RecurrentParams) -> RecurrentParams:
        """Let the neuron compute once what depends on its parameters alone."""
        return replace(params, neuron=prepared(self.neuron, params.neuron))

    def init_state(self, params: RecurrentParams, x: Array) -> RecurrentState:
        """Return fresh neurons, none of which has spiked."""
        _require_inputs(params.weight, x)
        x = jnp.asarray(x, params.weight.dtype)
        neuron = self.neuron.init_state(params.neuron, x)
        require_spikes_for(x, jax.eval_shape(self.neuron.step, params.neuron, neuron, x)[1])
        return RecurrentState(neuron, jnp.zeros_like(x))

    def step(self, params: RecurrentParams, state: RecurrentState, x: Array) -> tuple[RecurrentState, Any]:
        """Advance one step under the current ``x`` [N]; the output is the neuron's."""
        _require_inputs(params.weight, x)
        current = jnp.asarray(x, params.weight.dtype) + product(state.spikes, params.weight, self.matmul)
        neuron, output = self.neuron.step(params.neuron, state.neuron, current)
        return RecurrentState(neuron, output.spikes), output

    def scan(self, params: RecurrentParams, state: RecurrentState, inputs: Array) -> tuple[RecurrentState, Any]:
        """Advance through ``inputs`` [T, N]; the weight's gradient is one matmul after the backward loop."""
        _require_inputs(params.weight, inputs[0])
        inputs = jnp.asarray(inputs, params.weight.dtype)
        (neuron, spikes), output = scan_recurrent(
            self.neuron, self.matmul, params.neuron, params.weight, tuple(state), inputs
        )
        return RecurrentState(neuron, spikes), output


class NetworkOutput(NamedTuple):
    """The outputs of all layers, in order, so that hidden spikes can be seen and regularised."""

    layers: tuple[Any, ...]

    @property
    def output(self) -> Any:
        """The last layer's output."""
        return self.layers[-1]


@dataclass(frozen=True)
class Sequential:
    """Layers in a row, each fed with the :func:`signal` of the one before in the same step; itself a cell.

    Params and state are tuples with one entry for each layer, the output is a :class:`NetworkOutput`. Without
    feedback between layers the whole time axis goes through one layer before the next.

    Args:
        layers: a tuple of cells; the first takes the network's input.

    Raises:
        ValueError: for no layer, layers whose dt disagree, or one after the first that takes no array.

    Example:
        >>> import jaxlif as jl
        >>> network = Sequential((Dense(), Recurrent(jl.LIF(dt=1.0)), Dense(), jl.LeakyIntegrator(dt=1.0)))
        >>> keys = jax.random.split(jax.random.key(0), 3)
        >>> hidden = (init_dense(keys[0], 5, 8), init_recurrent(keys[1], 8))
        >>> params = (*hidden, init_dense(keys[2], 8, 2), jl.LeakyParams())
        >>> _, output = jl.simulate(network, params, jnp.ones((20, 5)))
        >>> output.output.v.shape, output.layers[1].spikes.shape
        ((20, 2), (20, 8))
    """

    layers: tuple[Cell, ...]

    def __post_init__(self) -> None:
        _require_cells(self.layers)
        steps = [(f"layer {i} ({type(layer).__name__})", _dt(layer)) for i, layer in enumerate(self.layers)]
        timed = [(name, dt) for name, dt in steps if dt is not None]
        # 0.1 + 0.2 and 0.3 are the same step.
        if not all(math.isclose(dt, timed[0][1], rel_tol=1e-9) for _, dt in timed):
            found = ", ".join(f"{name} has {dt:g} ms" for name, dt in timed)
            raise ValueError(f"dt must be the same in all layers: {found}")
        for i, layer in enumerate(self.layers[1:], 1):
            require_array_input(self, layer, f"layer {i}")

    @property
    def takes(self) -> type | None:
        """The named tuple that the first layer takes, None for an array."""
        return getattr(self.layers[0], "takes", None)

    @property
    def dt(self) -> float | None:
        """The step that the layers share, ms, or None where none has one."""
        return next((dt for layer in self.layers if (dt := _dt(layer)) is not None), None)

    def check(self, params: tuple) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of its layer."""
        require_entries(self.layers, params)
        for i, (layer, p) in enumerate(zip(self.layers, params, strict=True)):
            with _naming(i, layer):
                check_cell(layer, p)
                require_weights_for(layer, params[:i] or None)

    def check_inputs(self, inputs: Any) -> None:
        """Raise ValueError where a concrete input breaks a rule of the first layer."""
        check_inputs(self.layers[0], inputs)

    def init_state(self, params: tuple, x: Array) -> tuple:
        """Return each layer's fresh state, in the shape of what the layers before it pass on."""

        def _fresh(layer, p, _, x):
            # One step shows the shape of the layer's output; the compiler drops its arithmetic.
            state = layer.init_state(p, x)
            return state, layer.step(p, state, x)[1]

        return self._through(_fresh, params, (None,) * len(self.layers), x)[0]

    def step(self, params: tuple, state: tuple, x: Array) -> tuple[tuple, NetworkOutput]:
        """Advance every layer one step; ``x`` is the first layer's input."""
        return self._through(lambda layer, p, s, x: layer.step(p, s, x), params, state, x)

    def scan(self, params: tuple, state: tuple, inputs: Array) -> tuple[tuple, NetworkOutput]:
        """Take the ``inputs`` [T, ...] through one layer after the other."""

        def _run(layer, p, s, x):
            return scan_cell(layer, p, s, x, recompute=worth_recomputing(s))

        return self._through(_run, params, state, inputs)

    def _through(self, run: Callable, params: tuple, state: tuple, x: Array) -> tuple[tuple, NetworkOutput]:
        """Call ``run(layer, params, state, x) -> (state, output)`` on each layer in turn."""
        require_entries(self.layers, params)
        states, outputs = [], []
        for i, (layer, p, s) in enumerate(zip(self.layers, params, state, strict=True)):
            with _naming(i, layer):
                s, output = run(layer, p, s, x)
            x = signal(output)
            states.append(s)
            outputs.append(output)
        return tuple(states), NetworkOutput(tuple(outputs))


def init_dense(key: Array, num_in: int, num_out: int, *, gain: float = 1.0, bias: bool = True) -> DenseParams:
    r"""Draw a projection, :math:`W_{ij} \sim N(0, g^2 / n_{in})`, with bias 0.

    Independent inputs of mean square q give a current of variance :math:`g^2 q`: with q = 1 and g = 1 one
    standard deviation is the rheobase of a normalised neuron. Rare spikes need a larger gain.

    Args:
        key: random key.
        num_in: number of inputs.
        num_out: number of outputs.
        gain: :math:`g`, in units of the rheobase.
        bias: whether there is one.

    Returns:
        Weight [num_in, num_out] and bias [num_out] in JAX's default precision.

    Raises:
        ValueError: for a size below 1, or a gain that is not finite.

    Example:
        >>> params = init_dense(jax.random.key(0), 1000, 10, gain=2.0)
        >>> params.weight.shape, round(float(params.weight.std() * 1000**0.5), 1)
        ((1000, 10), 2.0)
    """
    _require_sizes(num_in=num_in, num_out=num_out)
    weight = number("gain", gain) / num_in**0.5 * jax.random.normal(random_key(key), (num_in, num_out))
    return DenseParams(weight=weight, bias=jnp.zeros_like(weight[0]) if bias else None)


def init_neurons(num_neurons: int, *, tau_m: Array | float = 20.0, t_ref: float = 0.0) -> LIFParams:
    """Return normalised neurons: rest 0, threshold 1, reset 0, resistance 1.

    Args:
        num_neurons: N.
        tau_m: membrane time constant, ms, scalar or [N]; the leaf is [N] either way, so that each neuron can
            learn its own.
        t_ref: refractory period, ms.

    Returns:
        Parameters in JAX's default precision.

    Raises:
        ValueError: for no neuron, or a time that breaks its rule.

    Example:
        >>> params = init_neurons(3, tau_m=10.0)
        >>> params.tau_m.tolist(), params.v_th
        ([10.0, 10.0, 10.0], 1.0)
    """
    _require_sizes(num_neurons=num_neurons)
    if jnp.shape(tau_m) not in ((), (1,), (num_neurons,)):
        raise ValueError(f"tau_m has shape {jnp.shape(tau_m)}: tau_m must be a number or one for each of {num_neurons}")
    tau_m = jnp.broadcast_to(jnp.asarray(numbers("tau_m", tau_m, "ms"), float), (num_neurons,))
    params = LIFParams(tau_m=tau_m, r_m=1.0, v_rest=0.0, v_th=1.0, v_reset=0.0, t_ref=t_ref)
    params.check()
    return params


def init_recurrent(
    key: Array, num_neurons: int, *, gain: float = 1.0, tau_m: Array | float = 20.0, t_ref: float = 0.0
) -> RecurrentParams:
    r"""Draw normalised neurons and the weights between them, :math:`W_{ij} \sim N(0, g^2 / N)`.

    The eigenvalues of W fill a disc of radius g. Neurons that spike with probability q in a step give one
    another a current of variance :math:`g^2 q`.

    Args:
        key: random key.
        num_neurons: N.
        gain: :math:`g`, in units of the rheobase.
        tau_m: membrane time constant, ms, scalar or [N].
        t_ref: refractory period, ms.

    Returns:
        Neurons of :func:`init_neurons` and the weight [N, N].

    Raises:
        ValueError: for no neuron.

    Example:
        >>> params = init_recurrent(jax.random.key(0), 100)
        >>> params.weight.shape, round(float(params.weight.std() * 100**0.5), 1)
        ((100, 100), 1.0)

    Source: Girko 1985, doi:10.1137/1129095 (the circular law).
    """
    neuron = init_neurons(num_neurons, tau_m=tau_m, t_ref=t_ref)
    return RecurrentParams(neuron=neuron, weight=init_dense(key, num_neurons, num_neurons, gain=gain).weight)


def spikes_of(output: Any) -> Array:
    """Return the spikes of a neuron's output, refusing a cell that has none to feed back."""
    if not hasattr(output, "spikes"):
        raise ValueError(f"neuron gives {type(output).__name__}: a neuron that feeds back needs spikes")
    return output.spikes


def require_spikes_for(x: Array, output: Any) -> None:
    """Refuse neurons that are more than their inputs, such as those with parameters [N, 1]."""
    if spikes_of(output).shape != x.shape:
        raise ValueError(
            f"neuron gives spikes {list(output.spikes.shape)} for an input {list(x.shape)}: they must agree"
        )


def require_drivable(layer: Any, neuron: Any) -> None:
    """Refuse a neuron that cannot be fed an array of its own spikes, when the layer is made."""
    require_array_input(layer, neuron)
    refusal = getattr(neuron, "no_feedback", None)
    if refusal:
        raise ValueError(f"neuron = {type(neuron).__name__}: {type(layer).__name__} feeds spikes back, and {refusal}")


def require_weights_for(layer: Any, way: Any) -> None:
    """Refuse negative weights that reach a layer where they are conductances, as far as they are at hand.

    ``way`` are the parameters of the layer before, or a tuple of those on the way, of which the last weights count.
    """
    if getattr(layer, "signed", True):
        return
    rule = "a weight that arrives as a conductance must be 0 nS or more; what inhibits is its e_rev"
    for stage in reversed(way) if isinstance(way, tuple) else (way,):
        for name in ("weight", "bias"):
            value = getattr(stage, name, None)
            if concrete(value):
                require(~(np.asarray(value) < 0.0), name, value, "nS", rule)
        if stage is not None and not hasattr(stage, "delay") and not hasattr(stage, "key"):
            return  # what passes a delay or a dropout keeps its sign


def _dt(layer: Any) -> float | None:
    """Return the dt of a layer or of the neuron that it wraps, None for one without time."""
    while not hasattr(layer, "dt") and hasattr(layer, "neuron"):
        layer = layer.neuron
    return getattr(layer, "dt", None)


@contextmanager
def _naming(index: int, layer: Any) -> Iterator[None]:
    """Say which layer of a network an error comes from, such as a field that the params of another layer lack."""
    try:
        yield
    except (ValueError, AttributeError) as error:
        raise ValueError(f"layer {index} ({type(layer).__name__}): {error}") from error


def _require_cells(layers: Any) -> None:
    if not isinstance(layers, tuple):
        raise ValueError(f"layers = {type(layers).__name__}: layers must be a tuple of cells")
    if not layers:
        raise ValueError("layers = (): a network needs at least one layer")
    for i, layer in enumerate(layers):
        if isinstance(layer, type) or not hasattr(layer, "step"):
            name = layer.__name__ if isinstance(layer, type) else type(layer).__name__
            raise ValueError(f"layers[{i}] = {name}: a layer must be a cell, such as Dense()")


def require_entries(layers: tuple[Cell, ...], params: Any) -> None:
    """Refuse parameters that are no tuple with one entry for each layer."""
    if not isinstance(params, tuple | list):
        raise ValueError(f"params = {type(params).__name__}: params must be a tuple, one entry for each layer")
    if len(params) != len(layers):
        raise ValueError(f"params are for {len(params)} layers: this network has {len(layers)}")


def check_recurrence(params: Any) -> None:
    """Raise ValueError where the weight of neurons that project to one another, or the neurons, break a rule."""
    size = jnp.shape(params.weight)[0] if jnp.ndim(params.weight) else None
    floats("weight", params.weight, (size, size), "[N, N]")
    check_params(params.neuron)


def _require_inputs(weight: Array, x: Array) -> None:
    if jnp.shape(x) != weight.shape[:1]:
        sizes = list(weight.shape)
        raise ValueError(f"weight {sizes} takes an input [{sizes[0]}], not {list(jnp.shape(x))}")


def _require_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        whole(name, size, 1)
