"""How large weights must be: the gain at which a layer fires, drives of a chosen size, weights that silence nobody."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, PyTree, Shaped

from jaxlif import theory
from jaxlif.checks import (
    PLAIN,
    check_params,
    not_negative,
    number,
    numbers,
    positive,
    require,
    require_fields,
    require_not_negative,
    require_positive,
)
from jaxlif.networks.layers import Dense, DenseParams
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.neurons.cell import Cell, innermost
from jaxlif.neurons.lif import LIFParams
from jaxlif.simulation import simulate


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

    The spike-triggered currents and thresholds of adaptive neurons are taken at their means, :math:`\nu \tau_k \eta_k`
    and :math:`\nu \tau_m \gamma_m` at the neuron's own rate, for which it is solved: simulated layers fire within 10 %
    of the wanted rate where both last for a mean interval at least.

    It holds for inputs that are many and independent. Inputs of high rate silence neurons with a negative mean current
    whatever the gain: ``balanced`` weights do not.

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
        ValueError: for inputs without spikes or with more than one a step, a rate that no gain reaches, and adaptation
            that is faster than the intervals, speeds the neuron up, or follows the voltage.

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
    _require_slow(neuron, rate)
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


def drive_gain(*, tau_m: Shaped[ArrayLike, "*N"], dt: float, rate: float, drive: float = 1.0) -> Float[Array, "*N"]:
    r"""Find the gain with which spikes make a membrane fluctuate by some thresholds:
    :math:`g = d / \sqrt{q \tanh(dt / 2\tau_m)}`.

    Spikes of probability q in a step through weights :math:`N(0, g^2/n)` give a normalised membrane, which keeps
    :math:`\alpha = e^{-dt/\tau_m}` of its voltage in a step, the mean square :math:`g^2 q (1-\alpha)/(1+\alpha)`. The
    columns of a recurrent weight take each their own, for neurons whose rate :func:`alive_gain` does not know.

    Args:
        tau_m: membrane time constants, ms.
        dt: step, ms.
        rate: of the spikes, Hz.
        drive: d, in units of the threshold.

    Example:
        >>> round(float(drive_gain(tau_m=20.0, dt=1.0, rate=20.0)), 1)
        44.7
    """
    tau_m = jnp.asarray(require_positive("tau_m", numbers("tau_m", tau_m), "ms"))
    chance = positive("rate", rate, "Hz") * positive("dt", dt, "ms") / 1000.0
    return jnp.asarray(not_negative("drive", drive) / jnp.sqrt(chance * jnp.tanh(0.5 * dt / tau_m)))


def scale_to_drive(
    projection: DenseParams,
    inputs: Shaped[Array, "B T num_in"],
    neuron: Cell,
    params: PyTree,
    *,
    drive: float = 1.0,
) -> DenseParams:
    r"""Scale each neuron's input weights so that real inputs make its voltage fluctuate by some thresholds.

    Each column is divided by the standard deviation, over samples and time, of the voltage that the inputs cause
    without spikes, and multiplied by ``drive``. The bias stays.

    Args:
        projection: weights [num_in, N], as of :func:`init_dense`.
        inputs: a batch of what they will see.
        neuron: the cell behind the projection, whose voltage follows its input linearly below threshold, such as
            :class:`jaxlif.ResonantLIF` or :class:`Arriving` currents, or :class:`jaxlif.LeakyIntegrator`.
        params: its parameters.
        drive: in units of v_th - v_rest, or of the voltage for a cell without threshold.

    Raises:
        ValueError: for a voltage that does not move, or not in proportion to the weights.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import init_dense, init_resonant
        >>> key, spikes = jax.random.key(0), jax.random.bernoulli(jax.random.key(1), 0.05, (8, 100, 20)).astype(float)
        >>> params, cell = init_resonant(key, 4), jl.ResonantLIF(dt=1.0)
        >>> scale_to_drive(init_dense(key, 20, 4), spikes, cell, params, drive=2.0).weight.shape
        (20, 4)

    Source: Mishkin & Matas 2016, doi:10.48550/arXiv.1511.06422 (scaling by what a layer puts out).
    """
    projection.check()
    positive("drive", drive)
    still, span = _without_spikes(params)
    target, weight = drive * span, projection.weight

    def _spread(weight: Any) -> Array:
        currents = jnp.asarray(inputs, weight.dtype) @ weight
        output = jax.vmap(lambda x: simulate(neuron, still, x))(currents)[1]
        return jnp.std(output.v, axis=(0, 1))

    weight = (target / _spread(weight))[None, :] * weight
    found = _spread(weight)
    rule = "neuron must follow its input in proportion below threshold, and every neuron have an input"
    require(np.isclose(found, target, rtol=1e-3), "drive", found / span, "", f"it was to be {drive:g}: {rule}")
    return replace(projection, weight=weight)


def _without_spikes(params: PyTree) -> tuple[PyTree, Any]:
    """Return parameters with a threshold out of reach, and the distance to it as it was."""
    own = innermost(params)
    if getattr(own, "v_th", None) is None:
        return params, 1.0
    span = own.v_th - own.v_rest

    def _raised(path: Any, x: Any) -> Any:
        return own.v_rest + 1e6 * span if jax.tree_util.keystr(path[-1:], simple=True) == "v_th" else x

    return jax.tree_util.tree_map_with_path(_raised, params), span


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
    plain, current, rise = _mean_adaptation(kinds, dt)

    def _rates(z: Array) -> Array:
        mean = theory.equilibrium(plain, bias + z * jnp.sqrt(variances[0]))
        sd = plain.r_m * jnp.sqrt(variances[1] * jnp.tanh(dt / (2.0 * plain.tau_m)))

        def _fires(rate: Any) -> Array:
            threshold = replace(plain, v_th=plain.v_th + rise * rate)
            most: Array = theory.diffusion_rate(threshold, mean - plain.r_m * current * rate, sd, dt)
            return jnp.minimum(most, 1000.0 / dt)

        free = _fires(0.0)
        return free if plain is kinds else _settled(_fires, free)

    def _mean(values: Array) -> Array:
        return weight @ (values @ share) / weight.sum()

    rate = jax.vmap(_rates)(z)
    q = rate * dt / 1000.0
    return _mean(rate), jnp.stack([_mean(q**2), _mean(q * (1.0 - q))])


def _require_slow(neuron: Any, rate: float) -> None:
    """Refuse adaptation that is not as good as its mean."""
    if not isinstance(neuron, AdaptiveLIFParams):
        return
    require_fields("alive_gain", neuron, PLAIN, ("a", "coupling", "mechanisms"))
    for jumps, taus, unit in (("eta", "tau_eta", "pA"), ("gamma", "tau_gamma", "mV")):
        for i, (jump, tau) in enumerate(zip(getattr(neuron, jumps), getattr(neuron, taus), strict=True)):
            require_not_negative(f"{jumps}.{i}", jump, unit)
            rule = f"it must be a mean interval, 1000 / rate = {1000.0 / rate:g} ms, or more, for its mean to count"
            require(np.asarray(tau) >= 1000.0 / rate, f"{taus}.{i}", tau, "ms", rule)


def _mean_adaptation(neuron: Any, dt: Any) -> tuple[Any, Any, Any]:
    """Return the neuron without adaptation, and for each Hz of its rate the mean current and threshold of that."""
    if not isinstance(neuron, AdaptiveLIFParams):
        return neuron, 0.0, 0.0

    def _per_hz(jumps: Any, taus: Any) -> Any:
        # A jump that decays by e^(-dt/tau) in each step is there for dt / (1 - e^(-dt/tau)), some tau.
        return sum(-1e-3 * dt * jump / jnp.expm1(-dt / tau) for jump, tau in zip(jumps, taus, strict=True))

    plain = LIFParams(**{name: getattr(neuron, name) for name in PLAIN})
    return plain, _per_hz(neuron.eta, neuron.tau_eta), _per_hz(neuron.gamma, neuron.tau_gamma)


def _settled(fires: Callable[[Array], Array], most: Array) -> Array:
    """Return the rate at which the adaptation to it leaves just that rate, of which there is one: it only slows."""

    def _halved(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = 0.5 * (ends[0] + ends[1])
        faster = fires(middle) > middle
        return jnp.where(faster, middle, ends[0]), jnp.where(faster, ends[1], middle)

    ends: tuple[Array, Array] = jax.lax.fori_loop(0, 15, _halved, (jnp.zeros_like(most), most))
    return 0.5 * (ends[0] + ends[1])  # to 2^-16 of the rate without adaptation
