"""A flight recorder: what each layer of a network does on a batch, and what is wrong with it.

Networks that do not learn are mostly silent, saturated, or pass on gradients that vanish or explode over time. All of
it can be read off one batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.checks import check_params, function, positive
from jaxlif.compiled import compiled
from jaxlif.networks.layers import NetworkOutput, Sequential, named_layer, signal
from jaxlif.networks.recorder_probes import Probes, Tapped, probed
from jaxlif.neurons.cell import Cell, check_cell, step_size
from jaxlif.simulation import scan_cell

_SILENT, _SATURATED, _GRADIENT = 0.5, 0.1, 1e3


@dataclass(frozen=True)
class FlightRecord:
    """The result of :func:`flight_record`, for the L layers that spike.

    Args:
        layers: their names, such as "layer 1 (Recurrent)".
        dt: step, ms.
        duration: of each sample, ms.
        rates: for each layer the rate of each neuron, [N], Hz, the mean over batch and time.
        mean_rate: over the neurons, [L], Hz.
        silent: fraction of neurons without a spike in the batch, [L].
        saturated: fraction of neurons that spike in more than half of all steps, [L].
        occupancy: mean of the surrogate's derivative over its value at threshold, 0 while refractory, [L]: the
            fraction of neurons and steps through which a gradient passes. nan for a neuron without a surrogate.
        spectral_radius: largest absolute eigenvalue of the recurrent weight, [L]; nan without one.
        loop_gain: the same of the step from voltages to voltages, [L]: leak, reset, surrogate and recurrent weight at
            their means over batch and time. Above 1 a gradient through the layer grows from step to step backwards.
            nan without a recurrent weight or a surrogate.
        broken: the first step, counted from 0, after which a number of the layer's output is not finite, [L]; -1 where
            all are finite.
        gradient_norm: norm over batch and neurons of the loss's gradient with respect to the layer's spikes in each
            step, [L, T]; None without a loss.
    """

    layers: tuple[str, ...]
    dt: float
    duration: float
    rates: tuple[np.ndarray, ...]
    mean_rate: np.ndarray
    silent: np.ndarray
    saturated: np.ndarray
    occupancy: np.ndarray
    spectral_radius: np.ndarray
    loop_gain: np.ndarray
    broken: np.ndarray
    gradient_norm: np.ndarray | None

    @property
    def alarms(self) -> tuple[str, ...]:
        """What is wrong, one line each, with the layer, the value and a remedy; empty where nothing is."""
        found = []
        for i, layer in enumerate(self.layers):
            found += [f"{layer}: {alarm}" for alarm in self._alarms_of(i)]
        return tuple(found)

    @property
    def failure(self) -> str:
        """Where numbers stop being finite, and a remedy, in one line; empty where all are finite.

        Forwards that is the layer that breaks first. Backwards it is the latest step with a gradient that is not
        finite, from which it spread to earlier ones, and of the layers there the last.
        """
        if (self.broken >= 0).any():
            first = min(range(len(self.layers)), key=lambda i: (self.broken[i] < 0, self.broken[i]))
            return f"{self.layers[first]}: {self._broken_alarm(first)}"
        bad = np.zeros((1, 1), bool) if self.gradient_norm is None else ~np.isfinite(self.gradient_norm)
        if not bad.any():
            return ""
        step = int(np.flatnonzero(bad.any(axis=0))[-1])
        layer = int(np.flatnonzero(bad[:, step])[-1])
        return f"{self.layers[layer]}: {_gradient_alarms(self.gradient_norm[layer])[0]}"  # type: ignore[index]

    def _broken_alarm(self, i: int) -> str:
        return (
            f"its output is not finite from step {self.broken[i]} on: look for parameters that are not, or that make "
            "it unstable, such as time constants far below dt"
        )

    def _alarms_of(self, i: int) -> list[str]:
        if self.broken[i] >= 0:
            return [self._broken_alarm(i)]
        lines = []
        if self.silent[i] > _SILENT:
            lines.append(
                f"{self.silent[i]:.0%} of the neurons are silent: raise the gain or bias of the weights before it "
                "(alive_gain computes one), balance them, or punish low rates in the loss"
            )
        if self.saturated[i] > _SATURATED:
            lines.append(
                f"{self.saturated[i]:.0%} of the neurons spike in more than half of the steps: lower the gain of the "
                "weights before it (alive_gain computes one), give the neurons a t_ref, or punish high rates in the "
                "loss"
            )
        if self.gradient_norm is not None:
            return lines + _gradient_alarms(self.gradient_norm[i])
        steps = self.duration / self.dt
        if self.loop_gain[i] > 1.0 and steps * np.log(self.loop_gain[i]) > np.log(_GRADIENT):
            lines.append(
                f"the recurrent loop multiplies a gradient by {self.loop_gain[i]:.3g} in each step (spectral radius "
                f"of the weight {self.spectral_radius[i]:.3g}): lower the recurrent gain, or take a steeper surrogate"
            )
        return lines


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
    if loss is not None:
        function("loss", loss)
    check_params(params)
    if jnp.ndim(inputs) < 2 or 0 in jnp.shape(inputs)[:2]:
        raise ValueError(f"inputs have shape {list(jnp.shape(inputs))}: a batch [B, T, ...] is needed")
    inputs = jnp.asarray(inputs)
    check_cell(network, params)
    shapes = jax.eval_shape(partial(_observe, network, None), params, inputs, {})[1]
    if not shapes:
        raise ValueError("network has no layer that spikes: there is nothing to record")
    taps = {name: jnp.zeros(seen.spikes.shape, seen.spikes.dtype) for name, seen in shapes.items()}
    seen, gradients = jax.device_get(_record(network, loss, params, inputs, taps))
    weights = {name: _recurrent_weight(p) for name, p in _leaves_of(network, params) if name in seen}
    return _summary(seen, gradients, weights, dt)


@compiled(values=2, keep=4)
def _record(network, loss, params, inputs, taps):
    """Return what each layer did, and the gradient with respect to its spikes, [B, T, N], by its name."""
    observe = partial(_observe, network, loss)
    if loss is None:
        return observe(params, inputs, taps)[1], None
    gradients, seen = jax.grad(observe, argnums=2, has_aux=True)(params, inputs, taps)
    return seen, gradients


class _Seen(NamedTuple):
    """What a layer did: spikes and probes [B, T, N], and whether its output was finite, [B, T]."""

    spikes: Array
    probes: Probes
    finite: Array


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
        with named_layer(i, inner):
            outputs.append(_through(inner, p, x, taps, seen, f"{path}.{i}".lstrip(".")))
        x = signal(outputs[-1])
    return NetworkOutput(tuple(outputs))


def _tapped(layer, params, x, taps, seen, name):
    first = jax.tree.map(lambda x: x[0], x)
    output = jax.eval_shape(lambda p, x: layer.step(p, layer.init_state(p, x), x)[1], params, first)
    if not hasattr(output, "spikes"):
        return scan_cell(layer, params, layer.init_state(params, first), x)[1]
    tap = taps.get(name, jnp.zeros((len(jax.tree.leaves(x)[0]), *output.spikes.shape), output.spikes.dtype))
    cell = Tapped(probed(layer))
    output, probes = scan_cell(cell, params, cell.init_state(params, (first, tap[0])), (x, tap))[1]
    finite = [jnp.isfinite(y.reshape(len(tap), -1)).all(axis=1) for y in jax.tree.leaves(output)]
    seen[name] = _Seen(output.spikes, probes, jnp.stack(finite).all(axis=0))
    return output


def _title(path, layer) -> str:
    return f"layer {path} ({type(layer).__name__})" if path else type(layer).__name__


def _leaves_of(layer, params, path=""):
    """Yield name and parameters of each layer that is not itself a network."""
    if not isinstance(layer, Sequential):
        yield _title(path, layer), params
        return
    for i, (inner, p) in enumerate(zip(layer.layers, params, strict=True)):
        yield from _leaves_of(inner, p, f"{path}.{i}".lstrip("."))


def _recurrent_weight(params) -> np.ndarray | None:
    weight = np.asarray(getattr(params, "weight", np.zeros(0)), float)
    return weight if weight.ndim == 2 and weight.shape[0] == weight.shape[1] else None


def _spectral_radius(matrix: np.ndarray) -> float:
    return float(np.abs(np.linalg.eigvals(matrix)).max()) if np.isfinite(matrix).all() else np.inf


def _loop_gain(weight: np.ndarray, probes: Probes) -> float:
    """Return the spectral radius of the mean step from voltages to voltages, leak and reset on its diagonal."""
    slope, keep, drive = (np.asarray(x, float).mean(axis=(0, 1)) for x in (probes.slope, probes.keep, probes.drive))
    if np.isnan([slope, keep, drive]).any() or slope.shape != weight.shape[:1]:
        return np.nan
    return _spectral_radius(np.diag(keep) + slope[:, None] * weight * drive)


def _summary(seen: dict[str, _Seen], gradients, weights: dict[str, np.ndarray | None], dt: float) -> FlightRecord:
    layers = tuple(weights)  # in the network's order
    active = [np.asarray(seen[name].spikes, float).mean(axis=(0, 1)).ravel() for name in layers]
    rates = tuple(1000.0 / dt * x for x in active)
    norms = None
    if gradients is not None:
        norms = np.stack([_norm_per_step(gradients[name]) for name in layers])
    own = {name: weight for name, weight in weights.items() if weight is not None}
    radius = {name: _spectral_radius(weight) for name, weight in own.items()}
    loop = {name: _loop_gain(weight, seen[name].probes) for name, weight in own.items()}
    return FlightRecord(
        layers=layers,
        dt=dt,
        duration=dt * seen[layers[0]].spikes.shape[1],
        rates=rates,
        mean_rate=np.array([x.mean() for x in rates]),
        silent=np.array([np.mean(x == 0.0) for x in active]),
        saturated=np.array([np.mean(x > 0.5) for x in active]),
        occupancy=np.array([np.mean(seen[name].probes.openness, dtype=float) for name in layers]),
        spectral_radius=np.array([radius.get(name, np.nan) for name in layers]),
        loop_gain=np.array([loop.get(name, np.nan) for name in layers]),
        broken=np.array([_first_broken(seen[name].finite) for name in layers]),
        gradient_norm=norms,
    )


def _first_broken(finite) -> int:
    bad = ~np.asarray(finite).all(axis=0)
    return int(np.argmax(bad)) if bad.any() else -1


def _norm_per_step(gradient) -> np.ndarray:
    by_step = np.moveaxis(np.asarray(gradient, float), 1, 0)
    by_step = by_step.reshape(len(by_step), -1)
    # Over the largest first: squares of numbers that are finite need not be.
    largest = np.abs(by_step).max(axis=1, keepdims=True)
    scale = np.where(np.isfinite(largest) & (largest > 0.0), largest, 1.0)
    return scale[:, 0] * np.linalg.norm(by_step / scale, axis=1)


def _gradient_alarms(norm: np.ndarray) -> list[str]:
    """Compare the first tenth of the time with the last tenth that has a gradient at all."""
    if not np.isfinite(norm).all():
        step = int(np.flatnonzero(~np.isfinite(norm))[-1])
        return [
            f"the gradient is not finite in step {step} of {len(norm)} and before; clipping cannot mend it: take a "
            "steeper surrogate, keep detach_reset=True, or lower the recurrent gain"
        ]
    if not norm.any():
        return ["the gradient is zero in every step: widen the surrogate, or raise the gain of the weights around it"]
    norm = norm[: np.flatnonzero(norm)[-1] + 1]
    tenth = max(1, len(norm) // 10)
    early, late = norm[:tenth].mean(), norm[-tenth:].mean()
    if early > _GRADIENT * late:
        return [
            f"the gradient grows {early / late:.2g}-fold from the last steps back to the first: lower the recurrent "
            "gain, take a steeper surrogate, keep detach_reset=True, or put optax.clip_by_global_norm before the "
            "optimiser"
        ]
    if late > _GRADIENT * early:
        fold = "to zero" if early == 0.0 else f"{late / early:.2g}-fold"
        return [
            f"the gradient vanishes {fold} from the last steps back to the first: lengthen tau_m, widen the "
            "surrogate, or raise the recurrent gain"
        ]
    return []


def _checked_dt(network, dt: float | None) -> float:
    own = step_size(network)
    dt = None if dt is None else positive("dt", dt, "ms")
    if own is None and dt is None:
        raise ValueError("dt is None: the network's layers have no dt, so give it, ms")
    if own is not None and dt is not None and own != dt:
        raise ValueError(f"dt = {dt:g} ms: dt must be the network's, which is {own:g} ms")
    return float(positive("dt", own if own is not None else dt, "ms"))
