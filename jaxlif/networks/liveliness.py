"""Weights that keep a network alive: the gain with which a layer fires at a wanted rate before it has learned."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from scipy.optimize import brentq

from jaxlif import theory
from jaxlif.checks import check_params, number, require, require_not_negative, require_positive
from jaxlif.networks.layers import DenseParams


def alive_gain(
    neuron: Any,
    rate: float,
    *,
    input_rate: ArrayLike,
    dt: float,
    recurrent_gain: float = 0.0,
    bias: float = 0.0,
    balanced: bool = False,
) -> float:
    r"""Find the gain of :func:`init_dense` with which spikes of a known rate make neurons fire at a wanted rate.

    With weights :math:`W_{ij} \sim N(0, g^2/n)`, inputs that spike with probability p in a step give each neuron a mean
    current that is drawn once, :math:`b + g\sqrt{\overline{p^2}}\,z` with :math:`z \sim N(0, 1)`, and noise of variance
    :math:`g^2\,\overline{p(1-p)}` in each step. The membrane's mean and deviation follow by Campbell's theorem, a
    neuron's rate by Siegert's formula, the layer's rate as the mean over z (and over neurons); the gain is where it is
    the wanted one. Recurrent spikes, at the layer's own rates q and with gain h, add :math:`h^2\,\overline{q^2}` and
    :math:`h^2\,\overline{q(1-q)}` to the two variances.

    It holds for inputs that are many (single spikes far below threshold) and independent, and for neurons without
    adaptation. Inputs of high rate leave many neurons silent whatever the gain, those with a negative mean current:
    ``balanced`` weights do not.

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
        g, in units of the rheobase for normalised neurons, for :func:`init_dense`.

    Raises:
        ValueError: for inputs without spikes or with more than one a step, or a rate that no gain reaches: with half
            of the mean currents negative the layer cannot exceed about half of the highest rate; and one that bias and
            recurrence alone exceed.

    Example:
        >>> from jaxlif.networks.layers import init_neurons
        >>> round(alive_gain(init_neurons(100, tau_m=20.0), 20.0, input_rate=50.0, dt=1.0), 1)
        22.6

    Source: Brunel 2000, doi:10.1023/A:1008925309027 (mean-field rates); Rossbroich, Gygax & Zenke 2022,
    doi:10.1088/2634-4386/ac97bb (fluctuation-driven initialisation).
    """
    require_positive("dt", number("dt", dt, "ms"), "ms")
    require_positive("rate", number("rate", rate, "Hz"), "Hz")
    require_not_negative("recurrent_gain", number("recurrent_gain", recurrent_gain), "")
    number("bias", bias)
    if not hasattr(neuron, "tau_m"):
        raise ValueError(f"neuron = {type(neuron).__name__}: neuron must be the parameters of neurons, with a tau_m")
    check_params(neuron)
    chance = np.asarray(input_rate, float) * dt / 1000.0
    rule = f"input_rate must lie between 0 and 1000 / dt = {1000.0 / dt:g} Hz"
    require((chance >= 0.0) & (chance <= 1.0), "input_rate", input_rate, "Hz", rule)
    if not chance.any():
        raise ValueError("input_rate = 0 Hz: inputs that never spike make nothing fire")
    per_gain = np.array([np.var(chance) if balanced else np.mean(chance**2), np.mean(chance * (1.0 - chance))])
    kinds, share = _kinds(neuron)

    def excess(gain: float) -> float:
        return _layer_rate(kinds, share, dt, bias, gain**2 * per_gain, recurrent_gain) - rate

    low, high = _bracket(excess, rate)
    return float(brentq(excess, low, high, rtol=1e-4))


def balance(params: DenseParams) -> DenseParams:
    r"""Take the mean off the weights of each neuron: :math:`W_{ij} \leftarrow W_{ij} - \frac1n \sum_k W_{kj}`.

    Inputs of one rate then drive all neurons alike: none is silent, and none saturated, because of the draw.

    Args:
        params: a projection with weight [num_in, num_out].

    Returns:
        The projection with a weight whose columns sum to 0.

    Raises:
        ValueError: for a weight that is no matrix of finite numbers.

    Example:
        >>> balance(DenseParams(weight=jnp.array([[1.0], [4.0]]))).weight.tolist()
        [[-1.5], [1.5]]
    """
    params.check()
    return replace(params, weight=params.weight - jnp.mean(params.weight, axis=0, keepdims=True))


def _bracket(excess: Callable[[float], float], rate: float) -> tuple[float, float]:
    """Return two gains between which the wanted rate lies, the upper one at most twice the lower."""
    gain = 1e-3
    if excess(gain) > 0.0:
        raise ValueError(f"rate = {rate:g} Hz: bias and recurrence alone make the neurons fire faster")
    while excess(2.0 * gain) < 0.0:
        gain *= 2.0
        if gain > 1e6:
            raise ValueError(f"rate = {rate:g} Hz: no gain reaches it, the most is {excess(gain) + rate:.3g} Hz")
    return gain, 2.0 * gain


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
def _mean_field(kinds, share, dt, bias, variances):
    """Return the layer's mean rate, and the means of :math:`q^2` and q(1-q), q the probability of a spike in a step.

    ``variances`` are those of the mean current over the neurons and of the noise in each step.
    """
    # A grid rather than Gauss-Hermite nodes: with little noise the rate has a kink at threshold.
    z = jnp.linspace(-5.0, 5.0, 101, dtype=variances.dtype)
    weight = jnp.exp(-0.5 * z**2)

    def rates(z):
        mean = theory.equilibrium(kinds, bias + z * jnp.sqrt(variances[0]))
        sd = kinds.r_m * jnp.sqrt(variances[1] * jnp.tanh(dt / (2.0 * kinds.tau_m)))
        return theory.diffusion_rate(kinds, mean, sd, dt)

    def mean(values):
        return weight @ (values @ share) / weight.sum()

    rate = jnp.minimum(jax.vmap(rates)(z), 1000.0 / dt)
    q = rate * dt / 1000.0
    return mean(rate), jnp.stack([mean(q**2), mean(q * (1.0 - q))])
