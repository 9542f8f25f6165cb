"""Starting values from the data and the neurons: time constants spread out, and a drive of a chosen size."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.checks import concrete, number, numbers, random_key, require, require_positive, whole
from jaxlif.networks.layers import DenseParams
from jaxlif.neurons.readout import LeakyIntegrator, LeakyParams
from jaxlif.neurons.resonant import ResonantLIFParams
from jaxlif.simulation import simulate


def log_uniform(key: Array, low: float, high: float, num: int) -> Array:
    r"""Draw :math:`e^u` with u uniform between log low and log high: as many in each octave.

    Args:
        key: random key; it is consumed.
        low: smallest value, such as a time constant in ms.
        high: largest value, above ``low``.
        num: how many.

    Returns:
        [num], in JAX's default precision.

    Raises:
        ValueError: unless 0 < low < high, both finite, or for fewer than one.

    Example:
        >>> tau_m = log_uniform(jax.random.key(0), 2.0, 200.0, 1000)
        >>> round(float(jnp.exp(jnp.log(tau_m).mean())), -1)  # the geometric mean, 20
        20.0
    """
    whole("num", num, 1)
    require_positive("low", number("low", low), "")
    number("high", high)
    require(low < high, "low", low, "", f"low must be below high = {high:g}")
    return jnp.exp(jax.random.uniform(random_key(key), (num,), minval=jnp.log(low), maxval=jnp.log(high)))


def init_resonant(
    key: Array,
    num_neurons: int,
    *,
    tau_m: tuple[float, float] = (2.0, 20.0),
    tau_w: tuple[float, float] = (30.0, 600.0),
    a: float = 120.0,
    b: float = 240.0,
    dt: float = 1.0,
) -> ResonantLIFParams:
    r"""Draw normalised resonant neurons, each with its own time constants and adaptation.

    The conductance is :math:`a\,\sigma(x)` and the jump :math:`b\,(1 - e^{-dt/\tau_w})\,\sigma(y)` with x and y normal:
    a spike in every step would drive the adaptation current to :math:`b\,\sigma(y)`.

    Args:
        key: random key; it is consumed.
        num_neurons: N.
        tau_m: range of the membrane time constants, ms, log-uniform.
        tau_w: range of the adaptation's, ms, log-uniform.
        a: largest conductance of the adaptation, in units of the leak's.
        b: largest adaptation current, in units of the rheobase.
        dt: step, ms.

    Returns:
        Parameters with rest 0, threshold 1, reset 0, resistance 1, no refractoriness and leaves [N] for the others.

    Raises:
        ValueError: unless both ranges are positive and increasing, or for another number that breaks its rule.

    Example:
        >>> params = init_resonant(jax.random.key(0), 100)
        >>> params.check()
        >>> params.a.shape, bool(params.a.max() < 120.0)
        ((100,), True)

    Source: Baronig et al. 2025, doi:10.1038/s41467-025-60878-z (the scale of a and b).
    """
    require_positive("dt", number("dt", dt, "ms"), "ms")
    for name, pair in (("tau_m", tau_m), ("tau_w", tau_w)):
        if np.shape(pair) != (2,):
            raise ValueError(f"{name} = {pair!r}: {name} must be a pair of ms, the shortest and the longest")
    keys = jax.random.split(random_key(key), 4)
    slow = log_uniform(keys[1], *tau_w, num_neurons)
    conductance, jump = (jax.nn.sigmoid(jax.random.normal(k, (num_neurons,))) for k in keys[2:])
    params = ResonantLIFParams(
        tau_m=log_uniform(keys[0], *tau_m, num_neurons),
        r_m=1.0,
        v_rest=0.0,
        v_th=1.0,
        v_reset=0.0,
        t_ref=0.0,
        a=a * conductance,
        tau_w=slow,
        b=-b * jnp.expm1(-dt / slow) * jump,
    )
    params.check()
    return params


def scale_to_drive(
    projection: DenseParams, inputs: Array, *, tau_m: Array | float, dt: float, drive: float = 1.0
) -> DenseParams:
    r"""Scale each neuron's input weights so that its voltage would fluctuate by ``drive`` thresholds.

    Each column of W is divided by the standard deviation, over samples and time, of the voltage that the inputs cause
    in a passive membrane of the neuron's time constant, :math:`\tau_m \dot v = x W - v`, and multiplied by ``drive``.

    Args:
        projection: weight [num_in, num_out]; a bias stays as it is.
        inputs: a sample of what it will get, [samples, T, num_in].
        tau_m: membrane time constants of the neurons that follow, ms, scalar or [num_out].
        dt: step, ms.
        drive: the wanted standard deviation, in units of v_th - v_rest of a normalised neuron.

    Returns:
        The projection with a scaled weight.

    Raises:
        ValueError: for a time constant, dt or drive that is not positive, inputs of another rank, or a neuron that the
            inputs do not move.

    Example:
        >>> from jaxlif.networks import init_dense
        >>> x = jax.random.bernoulli(jax.random.key(0), 0.1, (8, 200, 4)).astype(float)
        >>> projection = scale_to_drive(init_dense(jax.random.key(1), 4, 3), x, tau_m=10.0, dt=1.0, drive=2.0)
        >>> _, output = jax.vmap(lambda x: simulate(LeakyIntegrator(dt=1.0), LeakyParams(), x @ projection.weight))(x)
        >>> [round(float(s), 3) for s in output.v.std((0, 1))]
        [2.0, 2.0, 2.0]
    """
    require_positive("drive", number("drive", drive), "")
    projection.check()
    numbers("inputs", inputs, rank=3, finite=False)
    if jnp.shape(tau_m) not in ((), (1,), projection.weight.shape[1:]):
        raise ValueError(f"tau_m has shape {jnp.shape(tau_m)}: tau_m must be a number or one for each neuron")
    membrane, params = LeakyIntegrator(dt), LeakyParams(tau_m=tau_m)
    currents = jnp.asarray(inputs, projection.weight.dtype) @ projection.weight
    _, output = jax.vmap(lambda x: simulate(membrane, params, x))(currents)
    sd = output.v.std(axis=(0, 1))
    if concrete(sd):
        require(sd > 0, "sd", sd, "", "the inputs do not move the voltage of this neuron: they cannot be scaled")
    return DenseParams(weight=(drive / sd)[None, :] * projection.weight, bias=projection.bias)


def gain_to_drive(*, tau_m: Array | float, dt: float, rate: float, drive: float = 1.0) -> Array:
    r"""Return the gain of a weight with which independent spikes make the voltage fluctuate by ``drive`` thresholds.

    Spikes of probability q in a step through weights :math:`W_{ij} \sim N(0, g^2/n)` give a passive membrane, which
    keeps :math:`\alpha = e^{-dt/\tau_m}` of its voltage in a step, the mean square
    :math:`g^2 q\,\frac{1 - \alpha}{1 + \alpha}`; this is solved for g.

    Args:
        tau_m: membrane time constant, ms, scalar or [N].
        dt: step, ms.
        rate: q, spikes per input and step, up to 1.
        drive: the wanted root mean square, in units of v_th - v_rest of a normalised neuron.

    Returns:
        g, of the shape of ``tau_m``, to multiply the columns of a weight drawn with gain 1.

    Raises:
        ValueError: for values that are not positive, or a rate above 1.

    Example:
        >>> round(float(gain_to_drive(tau_m=20.0, dt=1.0, rate=0.1)), 2)  # about sqrt(2 tau_m / (q dt))
        20.0
    """
    for name, value, unit in (("tau_m", tau_m, "ms"), ("dt", dt, "ms"), ("rate", rate, ""), ("drive", drive, "")):
        require_positive(name, value, unit)
    number("rate", rate)
    require(rate <= 1.0, "rate", rate, "", "rate must be 1 spike per step or less")
    # (1 - alpha) / (1 + alpha) = tanh(dt / 2 tau)
    return drive / jnp.sqrt(rate * jnp.tanh(0.5 * dt / jnp.asarray(tau_m)))
