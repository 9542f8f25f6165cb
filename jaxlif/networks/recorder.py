"""A flight recorder: what each layer of a network does on a batch, and what is wrong with it.

Networks that do not learn are mostly silent, saturated, or pass on gradients that vanish or explode over time. All of
it can be read off one batch.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.networks.layers import NetworkOutput, Sequential, _dt, _naming, signal
from jaxlif.neurons.cell import Cell
from jaxlif.neurons.checks import check_params, require_positive
from jaxlif.simulate import scan_cell

_SILENT, _SATURATED, _GRADIENT, _RADIUS = 0.5, 0.1, 1e3, 1.5


@dataclass(frozen=True)
class FlightRecord:
    """The result of :func:`flight_record`, for the L layers that spike.

    Args:
        layers: their names, such as "layer 1 (Recurrent)".
        dt: step, ms.
        rates: for each layer the rate of each neuron, [N], Hz, the mean over batch and time.
        mean_rate: over the neurons, [L], Hz.
        silent: fraction of neurons without a spike in the batch, [L].
        saturated: fraction of neurons that spike in more than half of all steps, [L].
        occupancy: mean of the surrogate's derivative over its value at threshold, 0 while refractory, [L]: the
            fraction of neurons and steps through which a gradient passes. nan for a neuron without a surrogate.
        spectral_radius: largest absolute eigenvalue of the recurrent weight, [L]; nan without one.
        gradient_norm: norm over batch and neurons of the loss's gradient with respect to the layer's spikes in each
            step, [L, T]; None without a loss.
    """

    layers: tuple[str, ...]
    dt: float
    rates: tuple[np.ndarray, ...]
    mean_rate: np.ndarray
    silent: np.ndarray
    saturated: np.ndarray
    occupancy: np.ndarray
    spectral_radius: np.ndarray
    gradient_norm: np.ndarray | None

    @property
    def alarms(self) -> tuple[str, ...]:
        """What is wrong, one line each, with the layer, the value and a remedy; empty where nothing is."""
        found = []
        for i, layer in enumerate(self.layers):
            found += [f"{layer}: {alarm}" for alarm in self._alarms_of(i)]
        return tuple(found)

    def _alarms_of(self, i: int) -> list[str]:
        lines = []
        if self.silent[i] > _SILENT:
            lines.append(
                f"{self.silent[i]:.0%} of the neurons are silent: raise the gain or bias of the weights before it, "
                "or punish low rates in the loss"
            )
        if self.saturated[i] > _SATURATED:
            lines.append(
                f"{self.saturated[i]:.0%} of the neurons spike in more than half of the steps: lower the gain of the "
                "weights before it, give the neurons a t_ref, or punish high rates in the loss"
            )
        if self.spectral_radius[i] > _RADIUS:
            lines.append(
                f"the recurrent weight has spectral radius {self.spectral_radius[i]:.3g}: multiply it by "
                f"{1.0 / self.spectral_radius[i]:.2g}"
            )
        return lines + ([] if self.gradient_norm is None else _gradient_alarms(self.gradient_norm[i]))


def flight_record(
    network: Cell,
    params: Any,
    inputs: Array,
    loss: Callable[[Any], Array] | None = None,
    dt: float | None = None,
) -> FlightRecord:
    r"""Run a batch through a network and record rates, silence, saturation, surrogates and gradients of each layer.

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
    check_params(params)
    if jnp.ndim(inputs) < 2 or 0 in jnp.shape(inputs)[:2]:
        raise ValueError(f"inputs have shape {list(jnp.shape(inputs))}: a batch [B, T, ...] is needed")
    inputs = jnp.asarray(inputs)
    shapes = jax.eval_shape(partial(_observe, network, None), params, inputs, {})[1]
    if not shapes:
        raise ValueError("network has no layer that spikes: there is nothing to record")
    taps = {name: jnp.zeros(seen.spikes.shape, seen.spikes.dtype) for name, seen in shapes.items()}
    seen, gradients = jax.device_get(_record(network, loss, params, inputs, taps))
    radius = {name: _spectral_radius(p) for name, p in _leaves_of(network, params) if name in seen}
    return _summary(seen, gradients, radius, dt)


@partial(jax.jit, static_argnums=(0, 1))
def _record(network, loss, params, inputs, taps):
    """Return what each layer did, and the gradient with respect to its spikes, [B, T, N], by its name."""
    observe = partial(_observe, network, loss)
    if loss is None:
        return observe(params, inputs, taps)[1], None
    gradients, seen = jax.grad(observe, argnums=2, has_aux=True)(params, inputs, taps)
    return seen, gradients


class _Seen(NamedTuple):
    """A layer's spikes, and the surrogate's derivative over its value at threshold, each [B, T, N]."""

    spikes: Array
    openness: Array


def _observe(network, loss, params, inputs, taps):
    """Return the loss, and what each spiking layer did, with ``taps`` added to the spikes of each."""

    def run(x, taps):
        seen: dict[str, _Seen] = {}
        return _through(network, params, x, taps, seen), seen

    output, seen = jax.vmap(run)(inputs, taps)
    return (jnp.zeros(()) if loss is None else loss(output)), seen


def _through(layer, params, x, taps, seen, path=""):
    """Take the time axis through a layer, or through those inside it, and note what the spiking ones do."""
    if not isinstance(layer, Sequential):
        return _tapped(layer, params, x, taps, seen, _title(path, layer))
    outputs = []
    for i, (inner, p) in enumerate(zip(layer.layers, params, strict=True)):
        with _naming(i, inner):
            outputs.append(_through(inner, p, x, taps, seen, f"{path}.{i}".lstrip(".")))
        x = signal(outputs[-1])
    return NetworkOutput(tuple(outputs))


def _tapped(layer, params, x, taps, seen, name):
    first = jax.tree.map(lambda x: x[0], x)
    output = jax.eval_shape(lambda p, x: layer.step(p, layer.init_state(p, x), x)[1], params, first)
    if not hasattr(output, "spikes"):
        return scan_cell(layer, params, layer.init_state(params, first), x)[1]
    tap = taps.get(name, jnp.zeros((len(jax.tree.leaves(x)[0]), *output.spikes.shape), output.spikes.dtype))
    cell = _Tapped(_probed(layer))
    output, openness = scan_cell(cell, params, cell.init_state(params, (first, tap[0])), (x, tap))[1]
    seen[name] = _Seen(output.spikes, openness)
    return output


def _title(path, layer) -> str:
    return f"layer {path} ({type(layer).__name__})" if path else type(layer).__name__


class _Probed(NamedTuple):
    """A neuron's output, and how open its surrogate is, [N]."""

    output: Any
    openness: Array

    @property
    def spikes(self) -> Array:
        return self.output.spikes


@dataclass(frozen=True)
class _Probe:
    """A neuron that also says how open its surrogate is."""

    neuron: Any

    def init_state(self, params, x):
        return self.neuron.init_state(params, x)

    def step(self, params, state, x):
        advanced, v = self.neuron.integrate(params, state, x)
        # Measured, not computed: the slope of the spikes knows about held neurons and moving thresholds.
        _, slope = jax.jvp(lambda v: self.neuron.emit(params, advanced, v)[1], (v,), (jnp.ones_like(v),))
        physics = _innermost(params, "v_th")
        at_threshold = _innermost(self.neuron, "surrogate").surrogate(jnp.zeros_like(v))
        openness = slope * jnp.abs(physics.v_th - physics.v_rest) / at_threshold
        state, output = self.neuron.step(params, state, x)
        return state, _Probed(output, openness)


@dataclass(frozen=True)
class _Tapped:
    """A spiking layer to whose spikes a number is added, before anybody sees them."""

    layer: Any

    def init_state(self, params, x):
        return self.layer.init_state(params, x[0])

    def step(self, params, state, x):
        state, output = self.layer.step(params, state, x[0])
        probed = output if isinstance(output, _Probed) else _Probed(output, jnp.full_like(output.spikes, jnp.nan))
        spikes = probed.spikes + x[1]
        # A recurrent layer remembers its spikes, to send them to itself in the next step.
        state = state._replace(spikes=spikes) if hasattr(state, "spikes") else state
        return state, (probed.output._replace(spikes=spikes), probed.openness)


def _probed(layer):
    """Return a layer whose neuron is probed where it has a surrogate that can be; else the layer itself."""
    if hasattr(layer, "emit"):
        return _Probe(layer) if _innermost(layer, "surrogate") is not None else layer
    if hasattr(layer, "neuron") and hasattr(layer.neuron, "emit"):
        return replace(layer, neuron=_probed(layer.neuron))
    return layer


def _innermost(thing, field):
    """Return the thing, or the first neuron that it wraps, that has a field; None without one."""
    while not hasattr(thing, field):
        if not hasattr(thing, "neuron"):
            return None
        thing = thing.neuron
    return thing


def _leaves_of(layer, params, path=""):
    """Yield name and parameters of each layer that is not itself a network."""
    if not isinstance(layer, Sequential):
        yield _title(path, layer), params
        return
    for i, (inner, p) in enumerate(zip(layer.layers, params, strict=True)):
        yield from _leaves_of(inner, p, f"{path}.{i}".lstrip("."))


def _spectral_radius(params) -> float:
    weight = np.asarray(getattr(params, "weight", np.zeros(0)), float)
    if weight.ndim != 2 or weight.shape[0] != weight.shape[1]:
        return np.nan
    return float(np.abs(np.linalg.eigvals(weight)).max()) if np.isfinite(weight).all() else np.inf


def _summary(seen: dict[str, _Seen], gradients, radius, dt: float) -> FlightRecord:
    layers = tuple(name for name in radius)  # in the network's order
    active = [np.asarray(seen[name].spikes, float).mean(axis=(0, 1)).ravel() for name in layers]
    rates = tuple(1000.0 / dt * x for x in active)
    norms = None
    if gradients is not None:
        norms = np.stack([_norm_per_step(gradients[name]) for name in layers])
    return FlightRecord(
        layers=layers,
        dt=dt,
        rates=rates,
        mean_rate=np.array([x.mean() for x in rates]),
        silent=np.array([np.mean(x == 0.0) for x in active]),
        saturated=np.array([np.mean(x > 0.5) for x in active]),
        occupancy=np.array([np.mean(seen[name].openness, dtype=float) for name in layers]),
        spectral_radius=np.array([radius[name] for name in layers]),
        gradient_norm=norms,
    )


def _norm_per_step(gradient) -> np.ndarray:
    by_step = np.moveaxis(np.asarray(gradient, float), 1, 0)
    return np.linalg.norm(by_step.reshape(len(by_step), -1), axis=1)


def _gradient_alarms(norm: np.ndarray) -> list[str]:
    """Compare the first tenth of the time with the last tenth that has a gradient at all."""
    if not np.isfinite(norm).all():
        step = int(np.flatnonzero(~np.isfinite(norm))[-1])
        return [f"the gradient is not finite in step {step}: keep detach_reset=True and look for an exploding layer"]
    if not norm.any():
        return ["the gradient is zero in every step: widen the surrogate, or raise the gain of the weights around it"]
    norm = norm[: np.flatnonzero(norm)[-1] + 1]
    tenth = max(1, len(norm) // 10)
    early, late = norm[:tenth].mean(), norm[-tenth:].mean()
    if early > _GRADIENT * late:
        return [
            f"the gradient grows {early / late:.2g}-fold from the last steps back to the first: lower the recurrent "
            "gain, keep detach_reset=True, or put optax.clip_by_global_norm before the optimiser"
        ]
    if late > _GRADIENT * early:
        fold = "to zero" if early == 0.0 else f"{late / early:.2g}-fold"
        return [
            f"the gradient vanishes {fold} from the last steps back to the first: lengthen tau_m, widen the "
            "surrogate, or raise the recurrent gain"
        ]
    return []


def _checked_dt(network, dt: float | None) -> float:
    own = _dt(network)
    if own is None and dt is None:
        raise ValueError("dt is None: the network's layers have no dt, so give it, ms")
    if own is not None and dt is not None and own != dt:
        raise ValueError(f"dt = {dt:g} ms: dt must be the network's, which is {own:g} ms")
    chosen = float(own if own is not None else dt or 0.0)
    require_positive("dt", chosen, "ms")
    return chosen
