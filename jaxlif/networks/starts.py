"""Normalised neurons that adapt, resonate or explode, to begin a training with: rest 0, resistance 1, times in ms."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Key, Shaped

from jaxlif.checks import positive, random_key, require_not_negative, require_positive, whole
from jaxlif.networks.layers import init_neurons, per_neuron
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.neurons.adex import AdExParams
from jaxlif.neurons.resonant import ResonantLIFParams


def init_adaptive(
    num_neurons: int,
    *,
    tau_gamma: Shaped[ArrayLike, "#N"] | float = 200.0,
    rise: Shaped[ArrayLike, "#N"] | float = 1.0,
    rate: float = 20.0,
    dt: float = 1.0,
    tau_m: Shaped[ArrayLike, "#N"] | float = 20.0,
    t_ref: float = 0.0,
) -> AdaptiveLIFParams:
    r"""Return N normalised neurons whose threshold jumps at each spike: for :class:`AdaptiveLIF`.

    The jump is :math:`\gamma = rise\,(1 - e^{-dt/\tau_\gamma}) / (\nu\,dt)`: at the rate :math:`\nu` the threshold
    stands ``rise`` above 1 on average, whatever the step and the time constant. Take ``tau_gamma`` about as long as
    what is to be remembered, such as a sample, and give :func:`alive_gain` the same ``rate``.

    Args:
        num_neurons: N.
        tau_gamma: time constants of the threshold, ms; a range of them, [N], serves several spans.
        rise: mean rise, in units of the threshold; 0 for some neurons leaves them plain.
        rate: at which it is reached, Hz.
        dt: step, ms.
        tau_m, t_ref: as for :func:`init_neurons`.

    Example:
        >>> params = init_adaptive(3, tau_gamma=200.0, rise=1.0, rate=20.0)
        >>> params.gamma[0].round(4).tolist()  # times 200 ms and 20 Hz: 1
        [0.2494, 0.2494, 0.2494]

    Source: Bellec et al. 2018, doi:10.48550/arXiv.1803.09574 (thresholds that are a network's memory).
    """
    plain = init_neurons(num_neurons, tau_m=tau_m, t_ref=t_ref)
    tau = require_positive("tau_gamma", per_neuron("tau_gamma", tau_gamma, num_neurons), "ms")
    rise = require_not_negative("rise", per_neuron("rise", rise, num_neurons), "")
    jump = -1000.0 * rise * jnp.expm1(-positive("dt", dt, "ms") / tau) / (positive("rate", rate, "Hz") * dt)
    return AdaptiveLIFParams(**vars(plain), gamma=(jump,), tau_gamma=(tau,))


def init_resonant(
    key: Key[Array, ""],
    num_neurons: int,
    *,
    tau_m: tuple[float, float] = (2.0, 20.0),
    tau_w: tuple[float, float] = (30.0, 600.0),
    a: float = 120.0,
    b: float = 240.0,
    dt: float = 1.0,
) -> ResonantLIFParams:
    r"""Draw N normalised resonant neurons, each with its own time constants and adaptation: for :class:`ResonantLIF`.

    Time constants are log-uniform, the conductance is :math:`a\,\sigma(x)` and the jump :math:`b\,\sigma(y)
    (1 - e^{-dt/\tau_w})` with x and y normal: a spike in every step would drive the adaptation to :math:`b\,\sigma(y)`.

    Args:
        key: random key.
        num_neurons: N.
        tau_m, tau_w: ranges of the time constants, ms.
        a: largest conductance, in units of the leak.
        b: largest adaptation by spikes, in units of the rheobase.
        dt: step, ms.

    Example:
        >>> params = init_resonant(jax.random.key(0), 100)
        >>> bool((params.tau_w > 30.0).all() & (params.a < 120.0).all()), params.b.shape
        (True, (100,))

    Source: Baronig et al. 2025, doi:10.1038/s41467-025-60878-z (the scale of a and b).
    """
    keys = jax.random.split(random_key(key), 4)
    slow = log_uniform(keys[1], *tau_w, whole("num_neurons", num_neurons, 1))
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
        b=-b * jnp.expm1(-positive("dt", dt, "ms") / slow) * jump,
    )
    params.check()
    return params


def init_adex(
    num_neurons: int,
    *,
    delta_t: float = 0.1,
    tau_w: Shaped[ArrayLike, "#N"] | float = 200.0,
    rise: Shaped[ArrayLike, "#N"] | float = 0.0,
    rate: float = 20.0,
    tau_m: Shaped[ArrayLike, "#N"] | float = 20.0,
    t_ref: float = 0.0,
) -> AdExParams:
    r"""Return N exponential neurons in units of their rheobase, which is 1: for :class:`AdEx`.

    The upswing begins at :math:`v_T = 1 + \Delta_T`, from where it outgrows the leak of a current of 1, and ends in a
    spike :math:`10\,\Delta_T` above. The adaptation has no conductance, and jumps so that at a rate its mean is
    ``rise``: :math:`b = rise / (\nu \tau_w)`.

    Args:
        num_neurons: N.
        delta_t: width of the upswing, in units of the rheobase.
        tau_w: time constants of the adaptation, ms.
        rise: its mean, in units of the rheobase.
        rate: at which it is reached, Hz.
        tau_m, t_ref: as for :func:`init_neurons`.

    Example:
        >>> params = init_adex(2, rise=0.5)
        >>> params.rheobase.round(6).tolist(), params.b.tolist()
        ([1.0, 1.0], [0.125, 0.125])

    Source: Brette & Gerstner 2005, doi:10.1152/jn.00686.2005.
    """
    plain = vars(init_neurons(num_neurons, tau_m=tau_m, t_ref=t_ref))
    tau = require_positive("tau_w", per_neuron("tau_w", tau_w, num_neurons), "ms")
    jump = require_not_negative("rise", per_neuron("rise", rise, num_neurons), "")
    jump = 1000.0 * jump / (positive("rate", rate, "Hz") * tau)
    v_t = 1.0 + positive("delta_t", delta_t)
    return AdExParams(**plain | {"v_th": v_t + 10.0 * delta_t}, v_t=v_t, delta_t=delta_t, a=0.0, tau_w=tau, b=jump)


def log_uniform(key: Key[Array, ""], low: float, high: float, num: int) -> Float[Array, " num"]:
    """Draw exp(u) with u uniform between log low and log high: as many in each octave."""
    low, high = positive("low", low), positive("high", high)
    return jnp.exp(jax.random.uniform(key, (num,), minval=jnp.log(low), maxval=jnp.log(high)))
