"""The f-I curve of an LIF: its rate, with adaptation and a rheobase that varies, and the least squares that fit it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxlif.checks import numbers, require_not_negative
from jaxlif.fitting.bounds import Bounds
from jaxlif.neurons.lif import LIFParams
from jaxlif.theory import firing_rate, rheobase

DEEPEST = 300.0  # mV: the largest v_th - v_reset
FALLEN, LEAST_FALL = 0.8, 5.0  # share of the highest rate, and Hz below it, under which a rate has fallen
POOR = 0.3  # share of the mean rate that a fitted curve may be off
# Of the fit of one curve, which has a minimum for each gap between currents that may hold the onset.
STARTS, STEPS = 64, 100
FREE_STEPS = 400  # where tau_m is free too: it is badly determined, and its valley flat
ROUNDS, FIRST_STEPS, LATER_STEPS = 12, 40, 6  # of fitting many and learning their prior; updates in each
NOISE_PROBLEMS, LEAST_NOISE = 8.0, 1e-3  # observations that the others' noise counts for in a problem's own; the least
REACH = 5.0  # standard deviations of the noise that an average covers; 6e-7 of it lies outside
NODES, WEIGHTS = (0.5 * (np.polynomial.legendre.leggauss(16)[i] + (1.0, 0.0)[i]) for i in (0, 1))
LEAST_RATE = 1e-3  # Hz; keeps 1 / rate finite where the neuron is silent


def steady_rate(
    params: LIFParams, current: ArrayLike, adaptation: ArrayLike | None = None, noise: ArrayLike | None = None
) -> Array:
    r"""Return the steady rate, Hz, at constant currents I of any shape, averaged over a rheobase that varies.

    :math:`\bar f(I) = \int_0^\infty \Phi\big((I - f^{-1}(r)) / \sigma\big)\, dr` needs the inverse of f only, which is
    closed, and is smooth where f has an infinite slope: the curve bends at the rheobase instead of breaking.
    Adaptation in pA/Hz; noise, its standard deviation from trial to trial, in pA; None without.
    """
    current = jnp.asarray(current)
    if noise is None:
        return _adapted_rate(params, current, adaptation)
    # The integrand is 1 below the first and 0 above the second rate, so that moving them changes nothing.
    ends = (_adapted_rate(params, current + x * noise, adaptation) for x in (-REACH, REACH))
    low, high = jax.lax.stop_gradient(tuple(ends))
    nodes = jnp.asarray(NODES, current.dtype).reshape((1,) * current.ndim + (-1,))
    rate = jnp.maximum(low[..., None] + (high - low)[..., None] * nodes, LEAST_RATE)
    above = current[..., None] - _current(params, rate, adaptation)
    return low + (high - low) * (jax.scipy.special.ndtr(above / noise) @ jnp.asarray(WEIGHTS, current.dtype))


def _adapted_rate(params: LIFParams, current: Array, adaptation: Any) -> Array:
    """Find the rate where every spike triggers a current against the next: f = F(I - A f).

    Solved as its inverse, F^-1(f) + A f = I, whose left side is convex: Newton's method falls on the root from above.
    Source: Benda & Herz 2003, doi:10.1162/089976603322385063.
    """
    if adaptation is None:
        return firing_rate(params, current)
    fires = current > rheobase(params)
    # A current that fires, where this one does not, keeps that branch finite: its gradient is multiplied by 0.
    safe = jnp.where(fires, current, rheobase(params) + 1.0)

    def _excess(rate: Array) -> Array:
        return _current(params, rate, adaptation) - safe

    def _newton(excess: Callable[[Array], Array], rate: Array) -> Any:
        def _step(_: Any, rate: Array) -> Array:
            value, slope = jax.jvp(excess, (rate,), (jnp.ones_like(rate),))
            return rate - jnp.where(value > 0, value / slope, 0.0)

        return jax.lax.fori_loop(0, 40, _step, rate)

    linear = (safe - rheobase(params)) / jnp.maximum(adaptation, jnp.finfo(current.dtype).tiny)
    guess = jax.lax.stop_gradient(jnp.minimum(firing_rate(params, safe), linear))  # each of them lies above the root
    rate = jax.lax.custom_root(_excess, guess, _newton, lambda g, y: y / g(jnp.ones_like(y)))
    return jnp.where(fires, rate, 0.0)


def _current(params: LIFParams, rate: Array, adaptation: Any) -> Array:
    """Return the current that makes the neuron fire at a rate above 0, pA."""
    x = (1000.0 / rate - params.t_ref) / params.tau_m
    overdrive = (params.v_th - params.v_reset) / params.r_m * jnp.exp(-x) / -jnp.expm1(-x)
    return rheobase(params) + overdrive + (0.0 if adaptation is None else adaptation * rate)


def descend(residuals: Callable[[Array], Array], z: Float[Array, " n"], steps: int | Array) -> Float[Array, " n"]:
    """Minimise a sum of squares by damped Gauss-Newton steps, of those that do not raise it.

    Source: Marquardt 1963, doi:10.1137/0111030.
    """

    def _step(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        z, damping = carry
        r, jacobian = residuals(z), jax.jacfwd(residuals)(z)
        normal, gradient = jacobian.T @ jacobian, jacobian.T @ r
        scale = jnp.diag(jnp.maximum(jnp.diagonal(normal), 1e-30))  # a coordinate without effect stays
        step = jnp.clip(jnp.linalg.solve(normal + damping * scale, -gradient), -1.0, 1.0)
        # Rounding may raise the sum near the minimum, where the step still leads to a smaller gradient.
        better = jnp.sum(residuals(z + step) ** 2) <= (1.0 + 1e-12) * jnp.sum(r**2)
        damping = jnp.where(better, jnp.maximum(0.3 * damping, 1e-10), jnp.minimum(5.0 * damping, 1e10))
        return jnp.where(better, z + step, z), damping

    return jnp.asarray(jax.lax.fori_loop(0, steps, _step, (z, jnp.full_like(z[0], 1e-2)))[0])


def lowest(losses: Float[Array, "n starts"], found: Any) -> Any:
    """Return of each row of starts the one that ended lowest, of a pytree [n, starts, ...]."""
    best = jnp.argmin(jnp.where(jnp.isfinite(losses), losses, jnp.inf), axis=1)
    return jax.tree.map(lambda x: x[jnp.arange(len(best)), best], found)


def fit_pooled(
    errors: Callable[[Array, Any], tuple[Array, Array]],
    problems: Any,
    starts: Float[np.ndarray, "problems starts n"],
    mean: Float[np.ndarray, " n"],
    spread: Float[np.ndarray, " n"],
    *,
    pooled: int,
) -> tuple[Float[np.ndarray, "problems n"], Float[np.ndarray, " problems"]]:
    r"""Find for every problem the most probable coordinates, under a normal prior that all of them share.

    Minimises :math:`\sum_k e_k(z)^2 / s^2 + \sum_p k_p(z)^2 + (z - \mu)^T \Sigma^{-1} (z - \mu)`, with e and k of
    ``errors``. Then each problem's s and the prior of the first ``pooled`` coordinates are re-estimated from the fits
    and their posterior covariances, and all that is repeated: expectation-maximisation with a normal approximation of
    each posterior (Dempster, Laird & Rubin 1977, doi:10.1111/j.2517-6161.1977.tb01600.x). The prior given counts as
    much as one problem. Returned are coordinates and sums of e squared, NaN where no start was finite.
    """
    z, noise, counts = starts, np.ones(len(starts)), problems.weights.sum(axis=1)
    first = np.diag(spread**2)
    centre, covariance = mean.copy(), first.copy()
    for n in range(ROUNDS):
        inverse_root = np.linalg.inv(np.linalg.cholesky(covariance))
        z, best = _round(errors, problems, z, noise, (centre, inverse_root), LATER_STEPS if n else FIRST_STEPS)
        best = jax.tree.map(np.asarray, best)
        own = np.isfinite(best.loss)
        if not own.any():
            break
        shared = NOISE_PROBLEMS * np.median(noise[own]) ** 2
        noise[own] = np.sqrt((best.squares + best.leverage)[own] + shared) / np.sqrt(counts[own] + NOISE_PROBLEMS)
        noise = np.maximum(noise, LEAST_NOISE)
        part, total = (slice(pooled),) * 2, own.sum() + 1.0
        centre[:pooled] = ((best.z[own].sum(axis=0) + mean) / total)[:pooled]
        away = best.z[own] - centre
        covariance[part] = ((away.T @ away + best.covariance[own].sum(axis=0) + first) / total)[part]
    return np.where(own[:, None], best.z, np.nan), np.where(own, best.squares, np.nan)


class _Posterior(NamedTuple):
    """What one round leaves of one start."""

    z: Array  # [n]
    covariance: Array  # [n, n]
    loss: Array
    squares: Array  # sum over the observations of their squared errors
    leverage: Array  # and of the variances of their predictions


@partial(jax.jit, static_argnums=0)
def _round(
    errors: Callable[..., Any], problems: Any, z: Array, noise: Array, prior: Any, steps: Any
) -> tuple[Array, Any]:
    """Move all problems and starts by a number of updates; return where they are, and of each problem the lowest."""
    mean, inverse_root = prior

    def _one(problem: Any, noise: Array, z: Array) -> _Posterior:
        def _residuals(z: Array) -> Array:
            observed, known = errors(z, problem)
            return jnp.concatenate([observed / noise, known, inverse_root @ (z - mean)])

        z = descend(_residuals, z, steps)
        jacobian, (observed, _) = jax.jacfwd(_residuals)(z), errors(z, problem)
        # From the triangular factor and not from the normal equations, so that no variance comes out negative.
        root = jnp.linalg.inv(jnp.linalg.qr(jacobian, mode="r"))
        leverage = jnp.sum((noise * jacobian[: observed.size] @ root) ** 2)
        return _Posterior(z, root @ root.T, jnp.sum(_residuals(z) ** 2), jnp.sum(observed**2), leverage)

    found = jax.vmap(jax.vmap(_one, (None, None, 0)), (0, 0, 0))(problems, noise, z)
    return found.z, lowest(found.loss, found)


def fit_fi_curve(
    membrane: LIFParams,
    currents: np.ndarray,
    rates: np.ndarray,
    *,
    bounds: Bounds,
    free_tau_m: bool = False,
    seed: int = 0,
) -> tuple[LIFParams, dict[str, list[float]]]:
    """Fit threshold, reset and refractory period to rates [K], Hz, at ascending currents [K], pA, by the closed form.

    The membrane (tau_m, r_m, v_rest) is given, but for a tau_m that is freed: an f-I curve alone does not determine r_m
    and v_rest, and tau_m badly. The curve is returned as a table, with the rates that a fit to every
    second current predicts for the others. Bounds of v_th, v_reset and t_ref that leave nothing are refused.
    """
    limits = coordinate_limits(membrane, currents, rates, bounds)
    limits |= {"tau_m": bounds["tau_m"]} if free_tau_m else {}
    even = np.arange(len(rates)) % 2 == 0
    weights = np.stack([np.ones(len(rates)), even, ~even])
    draws = np.random.default_rng(seed).normal(size=(STARTS, len(limits)))
    draws[0] = 0.0
    with jax.enable_x64(True):
        starts = draws + coordinate_start(membrane, currents, rates, limits)
        neurons, fitted = jax.device_get(_fit_curves(membrane, limits, currents, rates, weights, starts))
    columns = {"current_pA": currents, "rate_Hz": rates, "fitted_rate_Hz": fitted[0]}
    columns |= {"held_out_rate_Hz": np.where(even, fitted[2], fitted[1])}
    table = {name: np.asarray(column, float).tolist() for name, column in columns.items()}
    return jax.tree.map(lambda x: float(x[0]), neurons), table


@jax.jit
def _fit_curves(membrane: LIFParams, limits: Any, currents: Array, rates: Array, weights: Array, starts: Array) -> Any:
    """Return for each row of weights [W, K] the neuron that fits best, and its rates [W, K]."""

    def _residuals(weights: Array, z: Array) -> Array:
        return weights * (firing_rate(neuron_at(membrane, limits, z), currents) - rates)

    steps = FREE_STEPS if "tau_m" in limits else STEPS

    def _one(weights: Array, z: Array) -> tuple[Array, Any]:
        z = descend(partial(_residuals, weights), z, steps)
        neuron = neuron_at(membrane, limits, z)
        return jnp.sum(_residuals(weights, z) ** 2), (neuron, firing_rate(neuron, currents))

    return lowest(*jax.vmap(jax.vmap(_one, (None, 0)), (0, None))(weights, starts))


def neuron_at(membrane: LIFParams, limits: Mapping[str, tuple[Any, Any]], z: Float[Array, " n"]) -> LIFParams:
    """Return the neuron at coordinates whose rules are plain intervals, of each a share.

    The reset's is that of v_th - v_reset between the least and the largest that the bounds of v_reset leave.
    """
    share = dict(zip(sorted(limits), jax.nn.sigmoid(z), strict=True))
    x = {name: low + (high - low) * share[name] for name, (low, high) in limits.items()}
    v_th = membrane.v_rest + membrane.r_m * x["rheobase"]
    least, most = _depths(v_th, limits["v_reset"])
    v_reset = v_th - (least + (most - least) * share["v_reset"])
    return replace(membrane, tau_m=x.get("tau_m", membrane.tau_m), v_th=v_th, v_reset=v_reset, t_ref=x["t_ref"])


def _depths(v_th: Any, reset_bounds: tuple[Any, Any]) -> tuple[Array, Array]:
    """Return the least and the largest v_th - v_reset, mV."""
    low, high = reset_bounds
    return jnp.maximum(0.0, v_th - high), jnp.minimum(DEEPEST, v_th - low)


def coordinate_limits(
    membrane: Any, currents: np.ndarray, rates: np.ndarray, bounds: Bounds
) -> dict[str, tuple[float, float]]:
    """Return the intervals of the coordinates: what the currents and the bounds of the parameters both allow."""
    reset, (ref_low, ref_high) = bounds["v_reset"], bounds["t_ref"]
    low, high, above = ((v - membrane.v_rest) / membrane.r_m for v in (*bounds["v_th"], reset[0]))
    limits = {
        "rheobase": (max(currents.min() - np.ptp(currents), low, above), min(currents.max(), high)),
        "t_ref": (ref_low, min(ref_high, 1000.0 / rates.max())),
    }
    for name, (low, high) in limits.items():
        if not low < high:
            raise ValueError(f"bounds of v_th, v_reset and t_ref leave no {name}: {low:.4g} to {high:.4g}")
    return {name: (float(low), float(high)) for name, (low, high) in (limits | {"v_reset": reset}).items()}


def coordinate_start(membrane: Any, currents: np.ndarray, rates: np.ndarray, limits: Mapping[str, Any]) -> np.ndarray:
    """Return where to start: at the observed onset, with a reset by 10 mV and a third of the longest t_ref."""
    guesses = {"rheobase": onset(currents, rates), "tau_m": membrane.tau_m}
    least, most = _depths(membrane.v_rest + membrane.r_m * guesses["rheobase"], limits["v_reset"])
    shares = {name: (x - limits[name][0]) / np.ptp(limits[name]) for name, x in guesses.items() if name in limits}
    shares |= {"t_ref": 0.3, "v_reset": float((10.0 - least) / (most - least))}
    inside = np.array([shares[name] if 0.0 < shares[name] < 1.0 else 0.5 for name in sorted(limits)])
    return np.asarray(np.log(inside) - np.log1p(-inside))


def onset(currents: np.ndarray, rates: np.ndarray) -> float:
    """Return a current between the lowest one that fires and the silent one below it, nearer to the first."""
    firing = currents[rates > 0].min()
    silent = currents[(rates == 0) & (currents < firing)]
    below = silent.max() if silent.size else firing - 0.5 * np.ptp(currents) / len(currents)
    return float(0.7 * firing + 0.3 * below)


def checked_rates(currents: npt.ArrayLike, rates: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return currents (pA, in any order) and their rates (Hz) [K], or raise ValueError where they make no f-I curve."""
    currents = np.asarray(numbers("currents", currents, "pA"), float)
    rates = np.asarray(numbers("rates", rates, "Hz"), float)
    if currents.shape != rates.shape or currents.ndim != 1:
        raise ValueError(f"currents has shape {currents.shape} and rates {rates.shape}: both must be [K]")
    if (levels := len(np.unique(currents))) < 3:
        raise ValueError(f"currents has {levels} levels: an f-I fit needs at least 3")
    require_not_negative("rates", rates, "Hz")
    if not rates.any():
        raise ValueError("rates are 0 Hz at every current: at least one must be above 0 Hz")
    return currents, rates


def curve_errors(table: Mapping[str, Any]) -> dict[str, float]:
    """Return the root mean square errors, Hz, of what a table of :func:`fit_fi_curve` has beside the rates."""
    columns = {"rmse": "fitted_rate_Hz", "rmse_held_out": "held_out_rate_Hz", "rmse_simulated": "simulated_rate_Hz"}
    errors = {name: np.subtract(table[column], table["rate_Hz"]) for name, column in columns.items() if column in table}
    if "held_out_rate_Hz" in table:
        currents, rates = (np.asarray(table[name]) for name in ("current_pA", "rate_Hz"))
        errors["rmse_interpolated"] = interpolated(currents, rates) - rates
    return {name: float(np.sqrt(np.mean(error**2))) for name, error in errors.items()}


def interpolated(currents: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Return at each of ascending currents [K] the rate on the line between every second other one: the baseline.

    Example:
        >>> interpolated(np.array([0.0, 10.0, 20.0, 30.0]), np.array([0.0, 4.0, 9.0, 16.0])).tolist()
        [4.0, 4.5, 10.0, 9.0]
    """
    even = np.arange(len(rates)) % 2 == 0
    between_odd, between_even = (np.interp(currents, currents[x], rates[x]) for x in (~even, even))
    return np.asarray(np.where(even, between_odd, between_even))


def rising_branch(currents: np.ndarray, rates: np.ndarray) -> int:
    """Return how many of the currents [K], ascending, come before the rates fall for good.

    They do where every further rate lies under 80 % of the highest one, and 5 Hz under it: a neuron in depolarisation
    block. The closed form of a LIF only rises.
    """
    highest = int(np.argmax(rates))
    low = (rates < FALLEN * rates[highest]) & (rates < rates[highest] - LEAST_FALL)
    rising = np.flatnonzero(~low | (currents <= currents[highest]))
    return int(rising[-1]) + 1


def blocked(currents: np.ndarray, rates: np.ndarray, fate: str = "are left out") -> tuple[str, ...]:
    """Say which currents [K], ascending, lie on a falling branch; nothing where there is none."""
    count, highest = rising_branch(currents, rates), int(np.argmax(rates))
    if count == len(rates):
        return ()
    return (
        f"the rates fall from {rates[highest]:.4g} Hz at {currents[highest]:.4g} pA to {rates[-1]:.4g} Hz at"
        f" {currents[-1]:.4g} pA, as in depolarisation block, which no LIF has: the {len(rates) - count} levels from"
        f" {currents[count]:.4g} pA on {fate}",
    )


def poor_curve(table: Mapping[str, list[float]]) -> tuple[str, ...]:
    """Say where the fitted curve of a table is none of the measured one."""
    error, mean = curve_errors(table)["rmse"], float(np.mean(table["rate_Hz"]))
    if error <= POOR * mean:
        return ()
    return (f"the fitted curve is {error:.3g} Hz off where the mean rate is {mean:.3g} Hz: these are no LIF's rates",)
