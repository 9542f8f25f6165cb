r"""Populations that drive one another: the rates at which each fires as its input makes it, and whether they last.

Neurons of one population are alike, and their inputs independent Poisson trains: mean and variance of the free membrane
are linear in the rates, and :func:`diffusion_rate` closes the circle.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Real

from jaxlif import checks
from jaxlif.theory.diffusion import diffusion_rate, interval_cv, require_fast
from jaxlif.theory.synaptic import Moments


class FixedPoints(NamedTuple):
    r"""F states of P populations in which the rates stay, from the lowest to the highest.

    ``rates`` [F, P] are in Hz, ``cv`` [F, P] those of the intervals. Small deviations go as :math:`e^{\lambda t}` with
    the ``eigenvalues`` [F, P], complex, 1/ms; ``kinds`` says in words what these mean.
    """

    rates: np.ndarray
    cv: np.ndarray
    eigenvalues: np.ndarray
    kinds: tuple[str, ...]


def mean_field_rates(
    params: Any, coupling: Moments, external: Moments, start: Real[Array, " P"], tau_syn: Any = None
) -> Float[Array, " P"]:
    r"""Find rates that reproduce themselves, :math:`\nu = \Phi(\mu(\nu), \sigma(\nu))`, by Newton's method.

    .. math::
        \mu_p = v_{rest} + \mu^{ext}_p + \sum_q M_{pq} \nu_q, \qquad \sigma_p^2 = V^{ext}_p + \sum_q V_{pq} \nu_q

    The rates are differentiable in all parameters, by the theorem of implicit functions.

    Args:
        params: parameters of the neurons, each leaf one number or [P].
        coupling: shift, mV, and variance, mV², that 1 Hz of each population q causes in each p, both [P, P]:
            ``jump_moments(params, weight, in_degree)`` or ``voltage_moments(params, weight, in_degree, tau_syn)``,
            there with a tau_m and r_m that are [P] as [P, 1].
        external: those of all other input, both [P].
        start: rates, Hz, from which to search.
        tau_syn: time constant, ms, of exponential synapses, as of :func:`diffusion_rate`; None for white noise.

    Returns:
        The rates, Hz; NaN where the search did not end at a fixed point.

    Raises:
        ValueError: for what breaks a rule, and for shapes that do not fit together.

    Example:
        >>> from jaxlif import LIFParams
        >>> from jaxlif.theory import jump_moments
        >>> params = LIFParams(tau_m=20.0, v_rest=0.0, v_th=20.0, v_reset=10.0, t_ref=2.0)
        >>> coupling = jump_moments(params, jnp.array([[-0.1]]), jnp.array([[400.0]]))  # mV, synapses of each neuron
        >>> external = jump_moments(params, jnp.array([0.1]), jnp.array([15_000.0]))  # mV, Hz
        >>> mean_field_rates(params, coupling, external, jnp.array([5.0])).round(2).tolist()
        [13.64]

    Source: Amit & Brunel 1997, doi:10.1093/cercor/7.3.237; Brunel 2000, doi:10.1023/A:1008925309027.
    """
    start = jnp.asarray(checks.require_not_negative("start", checks.numbers("start", start, "Hz", rank=1), "Hz"))
    _require_shapes(coupling, external, start.size)
    of = (params, coupling, external, tau_syn)
    fixed, start = jax.lax.stop_gradient((of, start))

    def _at(rates: Array) -> tuple[Array, Array]:
        excess = _excess(rates, *fixed)
        return excess, excess

    def _goes_on(reached: tuple[Array, ...]) -> Array:
        count, rates, _, excess = reached
        return (count < 100) & ~_settled(rates, excess)

    def _descend(reached: tuple[Array, ...]) -> tuple[Array, ...]:
        count, rates, slope, excess = reached
        step = jnp.linalg.solve(slope, excess)
        # Of Newton's step and its halves the first that lessens the excess, or some relaxation; no rate below 0.
        sizes = jnp.asarray(0.5 ** np.arange(8), rates.dtype)[:, None]
        tried = jnp.maximum(jnp.concatenate([rates[None] - sizes * step[None], (rates - 0.2 * excess)[None]]), 0.0)
        excesses = jnp.linalg.norm(jax.vmap(lambda r: _excess(r, *fixed))(tried), axis=1)
        better = (excesses < jnp.linalg.norm(excess)).at[-1].set(True)
        best = tried[jnp.argmax(better)]
        return count + 1, best, *jax.jacfwd(_at, has_aux=True)(best)

    begin = jnp.asarray(0), start, *jax.jacfwd(_at, has_aux=True)(start)
    _, found, slope, excess = jax.lax.while_loop(_goes_on, _descend, begin)
    # The last of Newton's steps carries the gradient: that of the implicit function.
    last = jnp.maximum(found - jnp.linalg.solve(slope, _excess(found, *of)), 0.0)
    return jnp.where(_settled(found, excess), last, jnp.nan)


def fixed_points(
    params: Any,
    coupling: Moments,
    external: Moments,
    tau_syn: Any = None,
    *,
    tau: Real[ArrayLike, "..."] | None = None,
    starts: int = 64,
) -> FixedPoints:
    r"""Find the states in which populations can stay, from many starts, and whether they last.

    Deviations are judged by :math:`\tau_p \dot\nu_p = -\nu_p + \Phi_p(\nu)`: eigenvalues of
    :math:`(\partial\Phi/\partial\nu - 1)/\tau`. This knows no delays and no filter beside tau: oscillations that delays
    cause are not seen.

    Args:
        params: as of :func:`mean_field_rates`, like ``coupling``, ``external`` and ``tau_syn``.
        coupling: [P, P].
        external: [P].
        tau_syn: ms, or None.
        tau: time constants, ms, with which the populations follow their input, one number or [P]; by default tau_m.
        starts: how many rates to search from, half of them alike in all populations, between 0.01 Hz and saturation.

    Returns:
        All states that were found; saturated is called one beyond 900/t_ref, silent one below 0.01 Hz.

    Raises:
        ValueError: as there, and where no start leads to a state.

    Example:
        >>> from jaxlif import LIFParams
        >>> from jaxlif.theory import jump_moments
        >>> params = LIFParams(tau_m=20.0, v_rest=0.0, v_th=20.0, v_reset=10.0, t_ref=2.0)
        >>> weight, in_degree = jnp.array([[0.3, -1.5], [0.3, -1.5]]), jnp.array([[200.0, 50.0], [200.0, 50.0]])
        >>> external = jump_moments(params, jnp.full(2, 0.3), jnp.full(2, 6666.6667))  # mV, Hz
        >>> found = fixed_points(params, jump_moments(params, weight, in_degree), external)
        >>> found.rates.round(1).tolist(), found.kinds
        ([[56.1, 56.1]], ('stable',))

    Source: as of :func:`mean_field_rates`; Wilson & Cowan 1972, doi:10.1016/S0006-3495(72)86068-5 (the stability).
    """
    size, count = _require_shapes(coupling, external), checks.whole("starts", starts, 2)
    if tau_syn is not None:
        require_fast(tau_syn, params.tau_m)
    tau = jnp.asarray(checks.require_positive("tau", params.tau_m if tau is None else tau, "ms"))
    highest = 1000.0 / np.max(np.asarray(params.t_ref + 0.1 * params.tau_m))
    alike = np.geomspace(0.01, highest, count // 2)[:, None] * np.ones(size)
    drawn = np.exp(np.random.default_rng(0).uniform(np.log(0.01), np.log(highest), (count - count // 2, size)))
    begun = jnp.asarray(np.concatenate([alike, drawn]), jnp.result_type(float))
    ends = _search(params, coupling, external, begun, tau_syn)
    rates = _distinct(np.asarray(ends)[np.isfinite(np.asarray(ends)).all(axis=1)])
    if not len(rates):
        raise ValueError(f"starts = {count}: from none were rates found that stay; do they grow without bound?")
    cv, slopes = _judged(params, coupling, external, jnp.asarray(rates), tau_syn)
    eigenvalues = np.linalg.eigvals(-np.asarray(slopes) / np.broadcast_to(tau, size)[:, None])
    limit = np.asarray(1000.0 / np.maximum(np.asarray(params.t_ref), 1e-9))
    kinds = tuple(_kind(r, e, limit) for r, e in zip(rates, eigenvalues, strict=True))
    return FixedPoints(rates, np.asarray(cv), eigenvalues, kinds)


def _require_shapes(coupling: Moments, external: Moments, size: int | None = None) -> int:
    size = jnp.size(external.mean) if size is None else size
    for name, part, shape in (("coupling", coupling, (size, size)), ("external", external, (size,))):
        for field, value in zip(Moments._fields, part, strict=True):
            if jnp.shape(value) != shape:
                raise ValueError(
                    f"{name}.{field} has shape {jnp.shape(value)}: it must be {shape}, for {size} populations"
                )
            checks.numbers(f"{name}.{field}", value)
        checks.require_not_negative(f"{name}.variance", part.variance, "mV²")
    return size


def _input(rates: Array, params: Any, coupling: Moments, external: Moments) -> tuple[Array, Array]:
    """Return mean and sd of the free membranes."""
    variance = external.variance + coupling.variance @ rates
    some = variance > 0  # of none the root has no slope
    sd = jnp.where(some, jnp.sqrt(jnp.where(some, variance, 1.0)), 0.0)
    return params.v_rest + external.mean + coupling.mean @ rates, sd


def _excess(rates: Array, params: Any, coupling: Moments, external: Moments, tau_syn: Any) -> Array:
    """Return by how much the rates are above those that they cause."""
    return rates - diffusion_rate(params, *_input(rates, params, coupling, external), 0.0, tau_syn)


def _settled(rates: Array, excess: Array) -> Array:
    tolerance = jnp.sqrt(jnp.finfo(rates.dtype).eps)  # which the last step squares
    return jnp.max(jnp.abs(excess) / (1e-3 + rates)) < tolerance


@jax.jit
def _search(params: Any, coupling: Moments, external: Moments, starts: Array, tau_syn: Any) -> Array:
    return jax.vmap(lambda start: mean_field_rates(params, coupling, external, start, tau_syn))(starts)


@jax.jit
def _judged(params: Any, coupling: Moments, external: Moments, rates: Array, tau_syn: Any) -> tuple[Array, Array]:
    def _one(rates: Array) -> tuple[Array, Array]:
        cv = interval_cv(params, *_input(rates, params, coupling, external), 0.0, tau_syn)
        return cv, jax.jacfwd(_excess)(rates, params, coupling, external, tau_syn)

    return jax.vmap(_one)(rates)


def _distinct(rates: np.ndarray) -> np.ndarray:
    """Return the rows that differ by more than where searches end, from the lowest to the highest."""
    kept: list[np.ndarray] = []
    for row in rates[np.argsort(rates.sum(axis=1))]:
        if not any(np.allclose(row, other, rtol=1e-4, atol=1e-6) for other in kept):
            kept.append(row)
    return np.array(kept)


def _kind(rates: np.ndarray, eigenvalues: np.ndarray, limit: np.ndarray) -> str:
    worst = eigenvalues[np.argmax(eigenvalues.real)]
    turns = 1000.0 * abs(worst.imag) / (2.0 * np.pi)
    if worst.real < 0:
        kind = f"stable, oscillates back at {turns:.3g} Hz" if turns else "stable"
    else:
        kind = f"unstable, oscillates away at {turns:.3g} Hz" if turns else "unstable, leaves for another state"
    if (rates < 0.01).all():
        return f"silent, {kind}"
    return f"saturated, {kind}" if (rates > 0.9 * limit).any() else kind
