"""The flight record: what the layers of a network do, and what is wrong with it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import PyTree, Shaped

from jaxlif.checks import function, positive
from jaxlif.compiled import compiled
from jaxlif.networks.graph import Sequential
from jaxlif.networks.precise import PreciseRecurrentState
from jaxlif.neurons.cell import Cell, HasSpikes, input_kind, prepared, step_size
from jaxlif.simulation import scan_cell, simulate


@dataclass(frozen=True)
class FlightRecord:
    """The result of :func:`flight_record`, for the L layers that spike."""

    layers: tuple[str, ...]  # their names, such as "layer 1 (Recurrent)"
    dt: float  # step, ms
    rates: tuple[np.ndarray, ...]  # for each layer that of each neuron, [N], Hz, the mean over batch and time
    silent: np.ndarray  # fraction of neurons without a spike in the batch, [L]
    saturated: np.ndarray  # fraction of neurons that spike in more than half of all steps, [L]
    broken: np.ndarray  # the first step, from 0, in which the output is not finite, [L]; -1 for none
    gradient_norm: np.ndarray | None  # by the layer's spikes, over batch and neurons, in each step, [L, T]

    @property
    def mean_rate(self) -> np.ndarray:
        """The mean over the neurons, [L], Hz."""
        return np.array([x.mean() for x in self.rates])

    @property
    def alarms(self) -> tuple[str, ...]:
        """What is wrong, one line each, with the layer, the value and a remedy; empty where nothing is."""
        return tuple(f"{layer}: {alarm}" for i, layer in enumerate(self.layers) for alarm in self._alarms_of(i))

    def _alarms_of(self, i: int) -> Iterator[str]:
        if self.broken[i] >= 0:
            cause = "parameters that are not, or that make it unstable, such as time constants far below dt"
            yield f"its output is not finite from step {self.broken[i]} on: look for {cause}"
            return
        if self.silent[i] > 0.5:
            remedy = "raise the gain or bias of the weights before it (alive_gain computes one), balance them"
            yield f"{self.silent[i]:.0%} of the neurons are silent: {remedy}, or punish low rates in the loss"
        if self.saturated[i] > 0.1:
            what = f"{self.saturated[i]:.0%} of the neurons spike in more than half of the steps"
            remedy = "lower the gain of the weights before it (alive_gain computes one), give the neurons a t_ref"
            yield f"{what}: {remedy}, or punish high rates in the loss"
        if self.gradient_norm is not None:
            yield from _gradient_alarm(self.gradient_norm[i])


def flight_record(
    network: Cell,
    params: PyTree,
    inputs: Shaped[Array, "B T *N"],
    loss: Callable[[Any], Array] | None = None,
    dt: float | None = None,
) -> FlightRecord:
    r"""Run a batch through a network and record rates, silence, saturation and gradients of each layer.

    The gradient in step t is :math:`\| \partial L / \partial s_t \|` over batch and neurons, of the layer's spikes as
    the next layer, the loss and the layer's own recurrent weights see them.

    Args:
        network: a :class:`Sequential`, which may contain others, or a single layer.
        params: its parameters.
        inputs: a batch [B, T, ...], or spikes with their times.
        loss: ``loss(output)``, a scalar, of the network's outputs with leaves [B, T, ...]; None for no gradients.
        dt: step, ms, for a network whose layers do not have one.

    Raises:
        ValueError: for a network without spikes, no dt or one that is not the network's, or inputs without a batch.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import Dense, DenseParams
        >>> network = Sequential((Dense(), jl.LIF(dt=1.0)))
        >>> params = (DenseParams(weight=jnp.array([[2.0, 0.0, 0.0]])), jl.networks.init_neurons(3))
        >>> record = flight_record(network, params, jnp.ones((4, 50, 1)))
        >>> record.mean_rate.round(1).tolist(), record.alarms[0][:45]
        ([20.0], 'layer 1 (LIF): 67% of the neurons are silent:')
    """
    if loss is not None:
        function("loss", loss)
    own = step_size(network)
    dt = own if dt is None else positive("dt", dt, "ms")
    if dt is None or own not in (None, dt):
        raise ValueError(f"dt = {dt} ms: dt must be the network's, which is {own} ms, and given where that is None")
    inputs = jax.tree.map(jnp.asarray, inputs)
    (size, *steps), *_ = shapes = [x.shape for x in jax.tree.leaves(inputs) if x.ndim] or [(0,)]
    if any(len(shape) < 2 or 0 in shape[:2] for shape in shapes):
        raise ValueError(f"inputs have shape {[size, *steps]}: a batch [B, T, ...] is needed")
    one = jax.eval_shape(partial(simulate, network, params), jax.tree.map(lambda x: x[0], inputs))[1]
    taps = {name: jnp.zeros((size, *y.spikes.shape), y.spikes.dtype) for name, y in _spiking(network, one)}
    if not taps:
        raise ValueError("network has no layer that spikes: there is nothing to record")
    found = jax.device_get(_record(network, loss, params, inputs, taps))
    active, finite, norms = zip(*(found[name] for name in taps), strict=True)
    return FlightRecord(
        layers=tuple(taps),
        dt=float(dt),
        rates=tuple(1000.0 / dt * x for x in active),
        silent=np.array([np.mean(x == 0.0) for x in active]),
        saturated=np.array([np.mean(x > 0.5) for x in active]),
        broken=np.array([-1 if x.all() else int(np.argmin(x)) for x in finite]),
        gradient_norm=None if loss is None else np.stack(norms).astype(float),
    )


def _gradient_alarm(norm: np.ndarray) -> Iterator[str]:
    """Compare the first tenth of the time with the last tenth that has a gradient at all."""
    if not np.isfinite(norm).all():
        step = int(np.flatnonzero(~np.isfinite(norm))[-1])
        what = f"the gradient is not finite in step {step} of {len(norm)} and before; clipping cannot mend it"
        yield f"{what}: take a steeper surrogate, keep detach_reset=True, or lower the recurrent gain"
        return
    if not norm.any():
        yield "the gradient is zero in every step: widen the surrogate, or raise the gain of the weights around it"
        return
    norm = norm[: np.flatnonzero(norm)[-1] + 1]
    tenth = max(1, len(norm) // 10)
    early, late = norm[:tenth].mean(), norm[-tenth:].mean()
    if early > 1e3 * late:
        what = f"the gradient grows {early / late:.2g}-fold from the last steps back to the first"
        yield f"{what}: lower the recurrent gain, take a steeper surrogate, or use optax.clip_by_global_norm"
    if late > 1e3 * early:
        fold = "to zero" if early == 0.0 else f"{late / early:.2g}-fold"
        what = f"the gradient vanishes {fold} from the last steps back to the first"
        yield f"{what}: lengthen tau_m, widen the surrogate, or raise the recurrent gain"


@compiled(values=2, keep=4)
def _record(network: Any, loss: Any, params: Any, inputs: Any, taps: dict[str, Array]) -> dict[str, tuple[Any, ...]]:
    """Return by a layer's name spikes per step [N], and in each step whether all is finite and the gradient's norm."""

    def _run(taps: dict[str, Array]) -> tuple[Array, Any]:
        def _one(x: Any, taps: dict[str, Array]) -> Any:
            cell, own = _tapped(network, params, taps)
            return scan_cell(cell, own, cell.init_state(own, jax.tree.map(lambda x: x[0], x)), x)[1]

        output = jax.vmap(_one)(inputs, taps)
        return (jnp.zeros(()) if loss is None else loss(output)), output

    gradients, output = jax.grad(_run, has_aux=True)(taps)
    found = {}
    for name, y in _spiking(network, output):
        finite = [jnp.isfinite(x).reshape(*x.shape[:2], -1).all(axis=(0, 2)) for x in jax.tree.leaves(y)]
        active = jnp.mean(y.spikes.astype(float), axis=(0, 1)).ravel()
        found[name] = active, jnp.stack(finite).all(axis=0), _norm_per_step(gradients[name])
    return found


def _norm_per_step(gradient: Array) -> Array:
    by_step = jnp.moveaxis(gradient, 1, 0).reshape(gradient.shape[1], -1)
    # Over the largest first: squares of numbers that are finite need not be.
    largest = jnp.max(jnp.abs(by_step), axis=1)
    scale = jnp.where(jnp.isfinite(largest) & (largest > 0.0), largest, 1.0)
    return jnp.multiply(scale, jnp.linalg.norm(by_step / scale[:, None], axis=1))


def layer_name(layer: Any, path: tuple[int | str, ...]) -> str:
    """Name a layer by its place in a network and its kind, as errors do."""
    return f"layer {'.'.join(map(str, path))} ({type(layer).__name__})" if path else type(layer).__name__


def _spiking(layer: Any, output: Any, path: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Return name and output of each layer that spikes, also of those inside networks, in order."""
    if isinstance(layer, Sequential):
        for i, inner in enumerate(layer.layers):
            yield from _spiking(inner, output.layers[i], (*path, i))
    elif isinstance(output, HasSpikes):
        yield layer_name(layer, path), output


def _tapped(layer: Any, params: Any, taps: dict[str, Array], path: tuple[int, ...] = ()) -> tuple[Any, Any]:
    """Return a cell and its parameters in which ``taps`` [T, N] are added to the spikes of the layers they name."""
    if isinstance(layer, Sequential):
        parts = [_tapped(inner, params[i], taps, (*path, i)) for i, inner in enumerate(layer.layers)]
        return Sequential(tuple(cell for cell, _ in parts)), tuple(own for _, own in parts)
    name = layer_name(layer, path)
    return (_Tapped(layer), (params, taps[name])) if name in taps else (layer, params)


@dataclass(frozen=True)
class _Tapped:
    """A spiking layer to whose spikes numbers [T, N] are added, before anybody sees them; params are (own, numbers)."""

    neuron: Any

    @property
    def takes(self) -> type | None:
        """The named tuple that the layer takes, None for an array."""
        return input_kind(self.neuron)

    def init_state(self, params: Any, x: Any) -> Any:
        """Return the layer's."""
        return self.neuron.init_state(params[0], x)

    def step(self, params: Any, state: Any, x: Any) -> Any:
        """Step the layer, for the shape of its output."""
        return self.neuron.step(params[0], state, x)

    def scan(self, params: Any, state: Any, inputs: Any, *, unroll: int = 1) -> tuple[Any, Any]:
        """Step the layer through all ``inputs``, and add to its spikes."""
        own = prepared(self.neuron, params[0])

        def _step(state: Any, x: Any) -> tuple[Any, Any]:
            state, output = self.neuron.step(own, state, x[0])
            spikes = output.spikes + x[1]
            # A recurrent layer remembers its spikes, to send them to itself in the next step.
            if isinstance(state, PreciseRecurrentState):
                state = state._replace(own=state.own._replace(spikes=spikes))
            elif "spikes" in getattr(state, "_fields", ()):
                state = state._replace(spikes=spikes)
            return state, output._replace(spikes=spikes)

        again = jax.checkpoint(_step, prevent_cse=False)
        return jax.lax.scan(again, state, (inputs, params[1]), unroll=unroll)
