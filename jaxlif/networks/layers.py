"""Layers of a network: cells like any other, chained by :class:`Sequential`.

Networks use the neuron in normalised units (rest 0, threshold 1, resistance 1): weights are then currents in
units of the rheobase, and times stay in ms. Code is written for one sample; ``jax.vmap`` makes batches.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Key, PyTree

from jaxlif.checks import concrete, floats, number, numbers, random_key, require, require_params, whole
from jaxlif.neurons.cell import Cell, check_cell, check_inputs, input_kind, is_cell, require_array_input, step_size
from jaxlif.neurons.lif import LIFParams
from jaxlif.simulation import scan_cell


class NetworkOutput(NamedTuple):
    """The outputs of all layers, in order, so that hidden spikes can be seen and regularised."""

    layers: tuple[Any, ...]

    @property
    def output(self) -> Any:
        """The last layer's output."""
        return self.layers[-1]


def signal(output: Any) -> Array:
    """Return what a layer passes on: its spikes where it has any, else its voltage, else itself; of a network the last.

    Example:
        >>> from jaxlif.neurons.leaky import LeakyOutput
        >>> float(signal(LeakyOutput(v=jnp.asarray(0.5))))
        0.5
    """
    if isinstance(output, NetworkOutput):
        return signal(output.output)
    return getattr(output, "spikes", getattr(output, "v", output))


class Stateless(ABC):
    """What layers share that remember nothing: a function of one time slice is the whole layer."""

    @abstractmethod
    def apply(self, params: Any, x: Array) -> Any:
        """Return the output under the input ``x`` of the same step."""

    def init_state(self, params: Any, x: Array) -> tuple[()]:
        """Return nothing: the layer remembers nothing."""
        return ()

    def step(self, params: Any, state: tuple[()], x: Array) -> tuple[tuple[()], Any]:
        """Take ``x``, one time slice, through the layer."""
        return (), self.apply(params, x)

    def scan(self, params: Any, state: tuple[()], inputs: Array, *, unroll: int = 1) -> tuple[tuple[()], Any]:
        """Take ``inputs`` [T, ...] through the layer, all steps at once."""
        return (), jax.vmap(partial(self.apply, params))(inputs)


# --- projections ------------------------------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class DenseParams:
    """Parameters of a projection, of a :class:`Dense` layer or, with a kernel, of a :class:`Conv`.

    Args:
        weight: [num_in, num_out] or [num_in, num_out, *kernel], current per unit of input.
        bias: constant current [num_out], or None.
    """

    weight: Float[Array, "num_in num_out *kernel"]
    bias: Float[Array, " num_out"] | None = None

    def check(self) -> None:
        """Raise ValueError where a shape or a concrete value breaks its rule."""
        axes = max(2, len(getattr(self.weight, "shape", ())))
        floats("weight", self.weight, (None,) * axes, "[num_in, num_out] or [num_in, num_out, *kernel]")
        if self.bias is not None:
            num_out = self.weight.shape[1]
            floats("bias", self.bias, (num_out,), f"[{num_out}], one for each output")


@dataclass(frozen=True)
class Dense(Stateless):
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
        """Raise ValueError for parameters of another kind, or of a convolution."""
        require_params(self, params, DenseParams)
        floats("weight", params.weight, (None, None), "[num_in, num_out]")

    def apply(self, params: DenseParams, x: Array) -> Array:
        """Project ``x`` [num_in] to [num_out]; spikes of any dtype are cast to the weight's."""
        require_input(params.weight, x)
        y = product(x, params.weight, self.matmul)
        return y if params.bias is None else y + params.bias


def product(x: Array, weight: Array, matmul: str | None = None) -> Array:
    """Multiply ``x`` [..., K] by ``weight`` [K, N], both rounded to ``matmul``; sum in the weight's dtype."""
    if matmul is None:
        return jnp.asarray(x, weight.dtype) @ weight
    few = jnp.dtype(matmul)
    return jnp.matmul(jnp.asarray(x, few), weight.astype(few), preferred_element_type=weight.dtype)


def require_matmul(matmul: str | None) -> None:
    """Refuse what is no dtype for a product."""
    if matmul not in (None, "bfloat16", "float16", "float32"):
        raise ValueError(f"matmul = {matmul!r}: matmul must be None or one of bfloat16, float16, float32")


def require_input(weight: Array, x: Array) -> None:
    """Refuse an input of another size than a weight takes."""
    if jnp.shape(x) != weight.shape[:1]:
        raise ValueError(f"weight {list(weight.shape)} takes an input [{weight.shape[0]}], not {list(jnp.shape(x))}")


# --- networks ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sequential:
    """Layers in a row, each fed with the signal of the one before in the same step: spikes, else a voltage; a cell too.

    Params and state are tuples with one entry for each layer; the output is a named tuple of all ``layers``' outputs,
    ``output`` the last one's. Without feedback between layers the whole time axis goes through one layer before the
    next.

    Args:
        layers: a tuple of cells; the first takes the network's input.

    Raises:
        ValueError: for no layer, layers whose dt disagree, or one after the first that takes no array.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import Recurrent, init_recurrent
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
        if not isinstance(self.layers, tuple):
            raise ValueError(f"layers = {type(self.layers).__name__}: layers must be a tuple of cells")
        if not self.layers:
            raise ValueError("layers = (): a network needs at least one layer")
        for i, layer in enumerate(self.layers):
            if i or not is_cell(layer):
                require_array_input(self, layer, f"layer {i}")
        steps = [(f"layer {i} ({type(layer).__name__})", step_size(layer)) for i, layer in enumerate(self.layers)]
        timed = [(name, dt) for name, dt in steps if dt is not None]
        # 0.1 + 0.2 and 0.3 are the same step.
        if not all(math.isclose(dt, timed[0][1], rel_tol=1e-9) for _, dt in timed):
            found = ", ".join(f"{name} has {dt:g} ms" for name, dt in timed)
            raise ValueError(f"dt must be the same in all layers: {found}")

    @property
    def takes(self) -> type | None:
        """The named tuple that the first layer takes, None for an array."""
        return input_kind(self.layers[0])

    @property
    def dt(self) -> float | None:
        """The step that the layers share, ms, or None where none has one."""
        return next((dt for layer in self.layers if (dt := step_size(layer)) is not None), None)

    def check(self, params: PyTree) -> None:
        """Raise ValueError where a concrete parameter breaks a rule of its layer."""
        for i, (layer, p) in enumerate(paired(self.layers, params)):
            with named_layer(i, layer):
                check_cell(layer, p)
                require_weights_for(layer, params[:i])

    def check_inputs(self, inputs: PyTree) -> None:
        """Raise ValueError where a concrete input breaks a rule of the first layer."""
        check_inputs(self.layers[0], inputs)

    def init_state(self, params: PyTree, x: PyTree) -> tuple:
        """Return each layer's fresh state, in the shape of what the layers before it pass on."""

        def _fresh(layer, p, _, x):
            # One step shows the shape of the layer's output; the compiler drops its arithmetic.
            state = layer.init_state(p, x)
            return state, layer.step(p, state, x)[1]

        return self._through(_fresh, params, (None,) * len(self.layers), x)[0]

    def step(self, params: PyTree, state: tuple, x: PyTree) -> tuple[tuple, NetworkOutput]:
        """Advance every layer one step; ``x`` is the first layer's input."""
        return self._through(lambda layer, p, s, x: layer.step(p, s, x), params, state, x)

    def scan(self, params: PyTree, state: tuple, inputs: PyTree, *, unroll: int = 1) -> tuple[tuple, NetworkOutput]:
        """Take the ``inputs`` [T, ...] through one layer after the other."""

        def _run(layer, p, s, x):
            return scan_cell(layer, p, s, x, unroll=unroll, recompute=worth_recomputing(s))

        return self._through(_run, params, state, inputs)

    def _through(self, run: Callable, params: PyTree, state: tuple, x: PyTree) -> tuple[tuple, NetworkOutput]:
        """Call ``run(layer, params, state, x) -> (state, output)`` on each layer in turn."""
        states, outputs = [], []
        for i, ((layer, p), s) in enumerate(zip(paired(self.layers, params), state, strict=True)):
            with named_layer(i, layer):
                s, output = run(layer, p, s, x)
            x = signal(output)
            states.append(s)
            outputs.append(output)
        return tuple(states), NetworkOutput(tuple(outputs))


def paired(layers: tuple[Cell, ...], params: Any) -> list[tuple[Cell, Any]]:
    """Return each layer with its parameters, refusing those that are no tuple with one entry for each."""
    if not isinstance(params, tuple | list):
        raise ValueError(f"params = {type(params).__name__}: params must be a tuple, one entry for each layer")
    if len(params) != len(layers):
        raise ValueError(f"params are for {len(params)} layers: this network has {len(layers)}")
    return list(zip(layers, params, strict=True))


@contextmanager
def named_layer(index: int, layer: Cell) -> Iterator[None]:
    """Say which layer of a network an error comes from, such as a field that the params of another layer lack."""
    try:
        yield
    except (ValueError, AttributeError) as error:
        raise ValueError(f"layer {index} ({type(layer).__name__}): {error}") from error


def worth_recomputing(state: PyTree) -> bool:
    """Say whether the backward pass of a layer should make a step's intermediate numbers anew, not keep them.

    A step with several state variables has many: recomputing takes half to two thirds of the time. A plain neuron with
    its voltage alone has few, which are read faster than made.
    """
    return sum(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(state)) > 1


@runtime_checkable
class Signed(Protocol):
    """A layer that says whether the weights that reach it may be negative; others take any."""

    @property
    def signed(self) -> bool:
        """Whether they may."""


def require_weights_for(layer: Cell, way: PyTree) -> None:
    """Refuse negative weights, at hand, that reach a layer as conductances; ``way`` holds the params before it."""
    if not isinstance(layer, Signed) or layer.signed:
        return
    rule = "a weight that arrives as a conductance must be 0 nS or more; what inhibits is its e_rev"
    for stage in reversed(jax.tree.leaves(way, is_leaf=is_dataclass)):
        fields = vars(stage) if is_dataclass(stage) else {}
        if "neuron" not in fields:
            for name in {"weight", "bias"} & fields.keys():
                if concrete(fields[name]):
                    require(~(np.asarray(fields[name]) < 0.0), name, fields[name], "nS", rule)
        if not fields.keys() <= {"delay", "sigma", "key"}:
            return  # what passes a delay or a dropout keeps its sign


# --- starting values --------------------------------------------------------------------------------------


def init_dense(
    key: Key[Array, ""],
    num_in: int,
    num_out: int,
    *,
    kernel: tuple[int, ...] = (),
    gain: float = 1.0,
    bias: bool = True,
) -> DenseParams:
    r"""Draw a projection, :math:`W \sim N(0, g^2 / (n_{in} \prod_d k_d))`, with bias 0.

    Independent inputs of mean square q give a current of variance :math:`g^2 q`: with q = 1 and g = 1 one
    standard deviation is the rheobase of a normalised neuron. Rare spikes need a larger gain.

    Args:
        key: random key.
        num_in: number of inputs, or channels.
        num_out: number of outputs, or channels.
        kernel: k, its size along each axis, for a :class:`Conv`.
        gain: :math:`g`, in units of the rheobase.
        bias: whether there is one.

    Returns:
        Weight [num_in, num_out, *kernel] and bias [num_out] in JAX's default precision.

    Raises:
        ValueError: for a size below 1, or a gain that is not finite.

    Example:
        >>> params = init_dense(jax.random.key(0), 1000, 10, gain=2.0)
        >>> params.weight.shape, round(float(params.weight.std() * 1000**0.5), 1)
        ((1000, 10), 2.0)
    """
    if not isinstance(kernel, tuple | list):
        raise ValueError(f"kernel = {kernel!r}: kernel must be a tuple of sizes, such as (3, 3)")
    shape = whole("num_in", num_in, 1), whole("num_out", num_out, 1), *(whole("kernel", k, 1) for k in kernel)
    scale = number("gain", gain) / (num_in * math.prod(kernel)) ** 0.5
    weight = scale * jax.random.normal(random_key(key), shape)
    return DenseParams(weight=weight, bias=jnp.zeros((num_out,), weight.dtype) if bias else None)


def init_neurons(
    num_neurons: int, *, tau_m: Float[Array, "#N"] | np.ndarray | float = 20.0, t_ref: float = 0.0
) -> LIFParams:
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
    whole("num_neurons", num_neurons, 1)
    if jnp.shape(tau_m) not in ((), (1,), (num_neurons,)):
        raise ValueError(f"tau_m has shape {jnp.shape(tau_m)}: tau_m must be a number or one for each of {num_neurons}")
    tau_m = jnp.broadcast_to(jnp.asarray(numbers("tau_m", tau_m, "ms"), float), (num_neurons,))
    params = LIFParams(tau_m=tau_m, r_m=1.0, v_rest=0.0, v_th=1.0, v_reset=0.0, t_ref=t_ref)
    params.check()
    return params
