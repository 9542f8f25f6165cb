"""A flight recorder: what each layer of a network does on a batch, and what is wrong with it.

Networks that do not learn are mostly silent, saturated, or pass on gradients that vanish or explode over time. All of
it can be read off one batch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import PyTree, Shaped

from jaxlif.checks import check_params, function, positive
from jaxlif.compiled import compiled
from jaxlif.networks.graph import Sequential
from jaxlif.networks.layers import NetworkOutput, signal
from jaxlif.neurons.cell import Cell, HasSpikes, check_cell, step_size
from jaxlif.simulation import scan_cell, simulate

_SILENT, _SATURATED, _GRADIENT = 0.5, 0.1, 1e3


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
        if self.silent[i] > _SILENT:
            remedy = "raise the gain or bias of the weights before it (alive_gain computes one), balance them"
            yield f"{self.silent[i]:.0%} of the neurons are silent: {remedy}, or punish low rates in the loss"
        if self.saturated[i] > _SATURATED:
            remedy = "lower the gain of the weights before it (alive_gain computes one), give the neurons a t_ref"
            what = f"{self.saturated[i]:.0%} of the neurons spike in more than half of the steps"
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

    The gradient in step t is :math:`g_t = \| \partial L / \partial s_t \|` over batch and neurons: of a number that
    is added, at 0, to the layer's spikes in that step, as the next layer, the loss and the layer's own recurrent
    weights see them.

    Args:
        network: a :class:`Sequential`, which may contain others, or a single layer.
        params: its parameters.
        inputs: a batch [B, T, ...].
        loss: ``loss(output)``, a scalar, of the network's outputs with leaves [B, T, ...]; None for no gradients.
        dt: step, ms, for a network whose layers do not have one.

    Returns:
        The :class:`FlightRecord`; its ``alarms`` say what is wrong.

    Raises:
        ValueError: for a network without spikes, no dt or one that is not the network's, or inputs without a batch.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import Dense, DenseParams, init_neurons
        >>> network = Sequential((Dense(), jl.LIF(dt=1.0)))
        >>> params = (DenseParams(weight=jnp.array([[2.0, 0.0, 0.0]])), init_neurons(3))
        >>> record = flight_record(network, params, jnp.ones((4, 50, 1)))
        >>> record.mean_rate.round(1).tolist(), record.alarms[0][:45]
        ([20.0], 'layer 1 (LIF): 67% of the neurons are silent:')
    """
    dt = _checked_dt(network, dt)
    if loss is not None:
        function("loss", loss)
    check_params(params)
    check_cell(network, params)
    if jnp.ndim(inputs) < 2 or 0 in jnp.shape(inputs)[:2]:
        raise ValueError(f"inputs have shape {list(jnp.shape(inputs))}: a batch [B, T, ...] is needed")
    inputs = jnp.asarray(inputs)
    jax.eval_shape(partial(simulate, network), params, inputs[0])  # names the layer that does not fit
    shapes = jax.eval_shape(partial(_observe, network, None), params, inputs, {})[1]
    if not shapes:
        raise ValueError("network has no layer that spikes: there is nothing to record")
    taps = {name: jnp.zeros(seen.spikes.shape, seen.spikes.dtype) for name, seen in shapes.items()}
    found = jax.device_get(_record(network, loss, params, inputs, taps))
    layers = tuple(name for name in _names(network) if name in found)
    spiking, finite, norms = zip(*(found[name] for name in layers), strict=True)
    active = [np.asarray(x, float).ravel() for x in spiking]
    return FlightRecord(
        layers=layers,
        dt=dt,
        rates=tuple(1000.0 / dt * x for x in active),
        silent=np.array([np.mean(x == 0.0) for x in active]),
        saturated=np.array([np.mean(x > 0.5) for x in active]),
        broken=np.array([-1 if x.all() else int(np.argmin(x)) for x in finite]),
        gradient_norm=None if loss is None else np.stack(norms).astype(float),
    )


def _checked_dt(network: Cell, dt: float | None) -> float:
    own = step_size(network)
    if own is None and dt is None:
        raise ValueError("dt is None: the network's layers have no dt, so give it, ms")
    if own is not None and dt not in (None, own):
        raise ValueError(f"dt = {dt:g} ms: dt must be the network's, which is {own:g} ms")
    return float(positive("dt", dt if own is None else own, "ms"))


def _names(layer: Any, path: str = "") -> list[str]:
    """Return the name of each layer that is not itself a network, in order."""
    if not isinstance(layer, Sequential):
        return [f"layer {path} ({type(layer).__name__})" if path else type(layer).__name__]
    return [name for i, inner in enumerate(layer.layers) for name in _names(inner, f"{path}.{i}".lstrip("."))]


def _gradient_alarm(norm: np.ndarray) -> Iterator[str]:
    """Compare the first tenth of the time with the last tenth that has a gradient at all."""
    if not np.isfinite(norm).all():
        step = int(np.flatnonzero(~np.isfinite(norm))[-1])
        remedy = "take a steeper surrogate, keep detach_reset=True, or lower the recurrent gain"
        where = f"in step {step} of {len(norm)} and before"
        yield f"the gradient is not finite {where}; clipping cannot mend it: {remedy}"
        return
    if not norm.any():
        yield "the gradient is zero in every step: widen the surrogate, or raise the gain of the weights around it"
        return
    norm = norm[: np.flatnonzero(norm)[-1] + 1]
    tenth = max(1, len(norm) // 10)
    early, late = norm[:tenth].mean(), norm[-tenth:].mean()
    if early > _GRADIENT * late:
        remedy = "lower the recurrent gain, take a steeper surrogate, keep detach_reset=True"
        what = f"the gradient grows {early / late:.2g}-fold from the last steps back to the first"
        yield f"{what}: {remedy}, or put optax.clip_by_global_norm before the optimiser"
    if late > _GRADIENT * early:
        fold = "to zero" if early == 0.0 else f"{late / early:.2g}-fold"
        remedy = "lengthen tau_m, widen the surrogate, or raise the recurrent gain"
        yield f"the gradient vanishes {fold} from the last steps back to the first: {remedy}"


class _Seen(NamedTuple):
    """What a layer did: spikes [B, T, N], and whether its output was finite, [B, T]."""

    spikes: Array
    finite: Array


_Found = dict[str, _Seen]  # by a layer's name


@compiled(values=2, keep=4)
def _record(network: Any, loss: Any, params: Any, inputs: Any, taps: dict[str, Array]) -> dict[str, tuple[Any, ...]]:
    """Return by a layer's name spikes per step [N], and in each step whether all is finite and the gradient's norm."""
    observe = partial(_observe, network, loss)
    if loss is None:
        norms, (_, seen) = dict.fromkeys(taps), observe(params, inputs, taps)
    else:
        gradients, seen = jax.grad(observe, argnums=2, has_aux=True)(params, inputs, taps)
        norms = {name: _norm_per_step(gradient) for name, gradient in gradients.items()}
    return {name: (jnp.mean(x.spikes, axis=(0, 1)), x.finite.all(axis=0), norms[name]) for name, x in seen.items()}


def _norm_per_step(gradient: Array) -> Array:
    by_step = jnp.moveaxis(gradient, 1, 0).reshape(gradient.shape[1], -1)
    # Over the largest first: squares of numbers that are finite need not be.
    largest = jnp.max(jnp.abs(by_step), axis=1)
    scale = jnp.where(jnp.isfinite(largest) & (largest > 0.0), largest, 1.0)
    return jnp.multiply(scale, jnp.linalg.norm(by_step / scale[:, None], axis=1))


def _observe(network: Any, loss: Any, params: Any, inputs: Any, taps: dict[str, Array]) -> tuple[Array, _Found]:
    """Return the loss, and what each spiking layer did, with ``taps`` added to the spikes of each."""

    def _run(x: Any, taps: dict[str, Array]) -> tuple[Any, _Found]:
        seen: _Found = {}
        return _through(network, params, x, taps, seen), seen

    output, seen = jax.vmap(_run)(inputs, taps)
    return (jnp.zeros(()) if loss is None else loss(output)), seen


def _through(layer: Any, params: Any, x: Any, taps: dict[str, Array], seen: _Found, path: str = "") -> Any:
    """Take the time axis through a layer, or through those inside it, and note what the spiking ones do."""
    if not isinstance(layer, Sequential):
        return _tapped(layer, params, x, taps, seen, _names(layer, path)[0])
    outputs = []
    for i, (inner, p) in enumerate(zip(layer.layers, params, strict=True)):
        outputs.append(_through(inner, p, x, taps, seen, f"{path}.{i}".lstrip(".")))
        x = signal(outputs[-1])
    return NetworkOutput(tuple(outputs))


def _tapped(layer: Any, params: Any, x: Any, taps: dict[str, Array], seen: _Found, name: str) -> Any:
    first = jax.tree.map(lambda x: x[0], x)
    output = jax.eval_shape(lambda p, x: layer.step(p, layer.init_state(p, x), x)[1], params, first)
    if not isinstance(output, HasSpikes):
        return scan_cell(layer, params, layer.init_state(params, first), x)[1]
    tap = taps.get(name, jnp.zeros((len(jax.tree.leaves(x)[0]), *output.spikes.shape), output.spikes.dtype))
    cell = _Tapped(layer)
    output = scan_cell(cell, params, cell.init_state(params, (first, tap[0])), (x, tap))[1]
    finite = [jnp.isfinite(y.reshape(len(tap), -1)).all(axis=1) for y in jax.tree.leaves(output)]
    seen[name] = _Seen(output.spikes, jnp.stack(finite).all(axis=0))
    return output


@dataclass(frozen=True)
class _Tapped:
    """A spiking layer to whose spikes a number is added, before anybody sees them."""

    layer: Any

    def init_state(self, params: Any, x: Any) -> Any:
        """Return the layer's; ``x`` is its input and what is added."""
        return self.layer.init_state(params, x[0])

    def step(self, params: Any, state: Any, x: Any) -> tuple[Any, Any]:
        """Step the layer, and add to its spikes."""
        state, output = self.layer.step(params, state, x[0])
        spikes = output.spikes + x[1]
        # A recurrent layer remembers its spikes, to send them to itself in the next step.
        state = state._replace(spikes=spikes) if "spikes" in getattr(state, "_fields", ()) else state
        return state, output._replace(spikes=spikes)
