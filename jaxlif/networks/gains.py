"""How large weights must be: the gain at which a layer fires, drives of a chosen size, weights that silence nobody."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import PyTree, Shaped

from jaxlif import theory
from jaxlif.checks import check_params, not_negative, number, positive, require
from jaxlif.networks.layers import Dense, DenseParams


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
