"""What keeps a network alive: the gain at which a layer fires, balanced weights, a record of what layers do."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import PyTree, Shaped

from jaxlif import theory
from jaxlif.checks import check_params, function, not_negative, number, positive, require
from jaxlif.compiled import compiled
from jaxlif.networks.graph import Sequential
from jaxlif.networks.layers import Dense, DenseParams
from jaxlif.neurons.cell import Cell, HasSpikes, prepared, step_size
from jaxlif.simulation import scan_cell, simulate


def alive_gain(
    neuron: PyTree,
    rate: float,
    *,
    input_rate: Shaped[ArrayLike, "*num_in"],
    dt: float,
    recurrent_gain: float = 0.0,
    bias: float = 0.0,
    balanced: bool = False,
) -> float:
    r"""Find the gain of :func:`init_dense` with which spikes of a known rate make neurons fire at a wanted rate.

    With weights :math:`W_{ij} \sim N(0, g^2/n)`, inputs that spike with probability p in a step give each neuron a mean
    current that is drawn once, :math:`b + g\sqrt{\overline{p^2}}\,z` with :math:`z \sim N(0, 1)`, and noise of variance
    :math:`g^2\,\overline{p(1-p)}` in each step. Campbell's theorem gives the membrane's mean and deviation, Siegert's
    formula a neuron's rate, the mean over z the layer's. Recurrent spikes, at the layer's own rates q and with gain h,
    add :math:`h^2\,\overline{q^2}` and :math:`h^2\,\overline{q(1-q)}` to the two variances.

    It holds for inputs that are many and independent, and for neurons without adaptation. Inputs of high rate silence
    neurons with a negative mean current whatever the gain: ``balanced`` weights do not.

    Args:
        neuron: parameters of the neurons that are to fire, such as those of :func:`init_neurons`, scalars or [N].
        rate: wanted mean rate of the layer, Hz.
        input_rate: mean rate of the input spikes, Hz, a scalar or one for each input.
        dt: time step, ms.
        recurrent_gain: h, that of :func:`init_recurrent`.
        bias: constant current, b, in the unit of the weights.
        balanced: the weights went through :func:`balance`, so that only differences between the inputs' rates draw
            mean currents: :math:`\overline{p^2} - \overline{p}^2` in place of :math:`\overline{p^2}`.

    Returns:
        g to 1e-4, in units of the rheobase for normalised neurons, for :func:`init_dense`.

    Raises:
        ValueError: for inputs without spikes or with more than one a step, and a rate that no gain reaches.

    Example:
        >>> from jaxlif.networks.layers import init_neurons
        >>> round(alive_gain(init_neurons(100, tau_m=20.0), 20.0, input_rate=50.0, dt=1.0), 1)
        22.6

    Source: Brunel 2000, doi:10.1023/A:1008925309027 (mean-field rates); Rossbroich, Gygax & Zenke 2022,
    doi:10.1088/2634-4386/ac97bb (fluctuation-driven initialisation).
    """
    dt, rate = positive("dt", dt, "ms"), positive("rate", rate, "Hz")
    recurrent_gain, bias = not_negative("recurrent_gain", recurrent_gain), number("bias", bias)
    if getattr(neuron, "tau_m", None) is None:
        raise ValueError(f"neuron = {type(neuron).__name__}: neuron must be the parameters of neurons, with a tau_m")
    check_params(neuron)
    chance = np.asarray(input_rate, float) * dt / 1000.0
    rule = f"input_rate must lie between 0 and 1000 / dt = {1000.0 / dt:g} Hz"
    require((chance >= 0.0) & (chance <= 1.0), "input_rate", input_rate, "Hz", rule)
    if not chance.any():
        raise ValueError("input_rate = 0 Hz: inputs that never spike make nothing fire")
    per_gain = np.array([np.var(chance) if balanced else np.mean(chance**2), np.mean(chance * (1.0 - chance))])
    kinds, share = _kinds(neuron)

    def _excess(gain: float) -> float:
        return _layer_rate(kinds, share, dt, bias, gain**2 * per_gain, recurrent_gain) - rate

    from scipy.optimize import brentq  # takes half a second to load

    low = 1e-3
    if _excess(low) > 0.0:
        raise ValueError(f"rate = {rate:g} Hz: bias and recurrence alone make the neurons fire faster")
    while _excess(2.0 * low) < 0.0:
        low *= 2.0
        if low > 1e6:
            raise ValueError(f"rate = {rate:g} Hz: no gain reaches it, the most is {_excess(low) + rate:.3g} Hz")
    return float(brentq(_excess, low, 2.0 * low, rtol=1e-4))


def balance(params: DenseParams) -> DenseParams:
    r"""Take the mean off the weights of each neuron: :math:`W_{ij} \leftarrow W_{ij} - \frac1n \sum_k W_{kj}`.

    Inputs of one rate then drive all neurons alike: none is silent, and none saturated, because of the draw.

    Example:
        >>> balance(DenseParams(weight=jnp.array([[1.0], [4.0]]))).weight.tolist()
        [[-1.5], [1.5]]
    """
    Dense().check(params)
    params.check()
    return replace(params, weight=params.weight - jnp.mean(params.weight, axis=0, keepdims=True))


def _kinds(neuron: Any) -> tuple[Any, np.ndarray]:
    """Return the parameters of the neurons that differ, each leaf [K], and the fraction of neurons of each kind."""
    leaves, structure = jax.tree.flatten(neuron)
    table = np.stack(np.broadcast_arrays(*(np.atleast_1d(np.asarray(x, float)) for x in leaves)))
    kinds, counts = np.unique(table, axis=1, return_counts=True)
    return jax.tree.unflatten(structure, [jnp.asarray(x) for x in kinds]), counts / counts.sum()


def _layer_rate(kinds: Any, share: np.ndarray, dt: float, bias: float, variances: np.ndarray, gain: float) -> float:
    """Return the mean rate, Hz, where the recurrent spikes come at the layer's own rates."""
    own = np.zeros(2)
    for _ in range(200):
        rate, new = _mean_field(kinds, share, dt, bias, variances + gain**2 * own)
        if gain == 0.0 or np.allclose(own, new, rtol=1e-5, atol=1e-12):
            break
        own = 0.5 * (own + np.asarray(new, float))  # half a step: it settles where a whole one would oscillate
    return float(rate)


@jax.jit
def _mean_field(kinds: Any, share: Array, dt: Any, bias: Any, variances: Array) -> tuple[Array, Array]:
    """Return the layer's mean rate, and the means of q² and q(1-q), q the probability of a spike in a step."""
    # The variances are those of the mean current over the neurons and of the noise in each step.
    # A grid rather than Gauss-Hermite nodes: with little noise the rate has a kink at threshold.
    z = jnp.linspace(-5.0, 5.0, 101, dtype=variances.dtype)
    weight = jnp.exp(-0.5 * z**2)

    def _rates(z: Array) -> Array:
        mean = theory.equilibrium(kinds, bias + z * jnp.sqrt(variances[0]))
        sd = kinds.r_m * jnp.sqrt(variances[1] * jnp.tanh(dt / (2.0 * kinds.tau_m)))
        return theory.diffusion_rate(kinds, mean, sd, dt)

    def _mean(values: Array) -> Array:
        return weight @ (values @ share) / weight.sum()

    rate = jnp.minimum(jax.vmap(_rates)(z), 1000.0 / dt)
    q = rate * dt / 1000.0
    return _mean(rate), jnp.stack([_mean(q**2), _mean(q * (1.0 - q))])


# --- the flight record ---


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
        inputs: a batch [B, T, ...].
        loss: ``loss(output)``, a scalar, of the network's outputs with leaves [B, T, ...]; None for no gradients.
        dt: step, ms, for a network whose layers do not have one.

    Raises:
        ValueError: for a network without spikes, no dt or one that is not the network's, or inputs without a batch.

    Example:
        >>> import jaxlif as jl
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
    if jnp.ndim(inputs) < 2 or 0 in jnp.shape(inputs)[:2]:
        raise ValueError(f"inputs have shape {list(jnp.shape(inputs))}: a batch [B, T, ...] is needed")
    one = jax.eval_shape(partial(simulate, network, params), jnp.asarray(inputs)[0])[1]
    taps = {name: jnp.zeros((len(inputs), *y.spikes.shape), y.spikes.dtype) for name, y in _spiking(network, one)}
    if not taps:
        raise ValueError("network has no layer that spikes: there is nothing to record")
    found = jax.device_get(_record(network, loss, params, jnp.asarray(inputs), taps))
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
            state = state._replace(spikes=spikes) if "spikes" in getattr(state, "_fields", ()) else state
            return state, output._replace(spikes=spikes)

        again = jax.checkpoint(_step, prevent_cse=False)
        return jax.lax.scan(again, state, (inputs, params[1]), unroll=unroll)
