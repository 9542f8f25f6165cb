"""Threshold, reset and refractory period from firing rates, with the membrane given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.checks import numbers
from jaxlif.fitting.bounds import Bounds
from jaxlif.fitting.fit import lbfgs, multistart, uninterrupted
from jaxlif.neurons.lif import LIFParams, Parameter
from jaxlif.theory import firing_rate

DEEPEST = 300.0  # mV: the largest v_th - v_reset
FALLEN, LEAST_FALL = 0.8, 5.0  # share of the highest rate, and Hz below it, under which a rate has fallen
POOR = 0.3  # share of the mean rate that a fitted curve may be off


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class FICoordinates:
    """What an f-I curve knows of a neuron with a given membrane, in coordinates whose rules are plain intervals.

    Args:
        tau_m: ms.
        rheobase: pA.
        reset_share: where v_th - v_reset lies between the least and the largest that the bounds of v_reset leave.
        t_ref: ms.
    """

    tau_m: Parameter
    rheobase: Parameter
    reset_share: Parameter
    t_ref: Parameter

    def neuron(self, membrane: LIFParams, reset_bounds: tuple[float, float]) -> LIFParams:
        """Return the neuron of these coordinates with the resistance and the resting potential of ``membrane``."""
        v_th = membrane.v_rest + membrane.r_m * self.rheobase
        least, most = _depths(v_th, reset_bounds)
        v_reset = v_th - (least + (most - least) * self.reset_share)
        return replace(membrane, tau_m=self.tau_m, v_th=v_th, v_reset=v_reset, t_ref=self.t_ref)


def _depths(v_th: Parameter, reset_bounds: tuple[float, float]) -> tuple[Array, Array]:
    """Return the least and the largest v_th - v_reset, mV."""
    low, high = reset_bounds
    return jnp.maximum(0.0, v_th - high), jnp.minimum(DEEPEST, v_th - low)


class Rates(NamedTuple):
    """Firing rates to fit: currents [K] pA, rates [K] Hz, weights [K]; and the bounds of v_reset, mV."""

    currents: Array
    rates: Array
    weights: Array
    reset_bounds: tuple[float, float]


class FIFit(NamedTuple):
    """A fitted f-I curve: the neuron, its rates [K] and the rates [K] predicted without their own half, Hz."""

    params: LIFParams
    rates: np.ndarray
    held_out_rates: np.ndarray

    def table(self, currents: np.ndarray, rates: np.ndarray) -> dict[str, list[float]]:
        """Return the measured and the fitted curve as lists for a file."""
        columns = {"current_pA": currents, "rate_Hz": rates}
        columns |= {"fitted_rate_Hz": self.rates, "held_out_rate_Hz": self.held_out_rates}
        return {name: np.asarray(column, float).tolist() for name, column in columns.items()}


def curve_errors(table: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the root mean square errors, Hz, of a table's fitted and held-out rates.

    Args:
        table: from :meth:`FIFit.table`.

    Example:
        >>> curve_errors({"rate_Hz": [0.0, 4.0], "fitted_rate_Hz": [0.0, 4.0], "held_out_rate_Hz": [0.0, 6.0]})
        {'rmse': 0.0, 'rmse_held_out': 1.4142135623730951}
    """
    columns = {"rmse": "fitted_rate_Hz", "rmse_held_out": "held_out_rate_Hz"}
    return {name: root_mean_square(table[column], table["rate_Hz"]) for name, column in columns.items()}


def root_mean_square(rates: Sequence[float] | np.ndarray, targets: Sequence[float] | np.ndarray) -> float:
    """Return the root mean square difference of two lists of rates, Hz."""
    return float(np.sqrt(np.mean(np.subtract(rates, targets) ** 2)))


def rising_branch(currents: np.ndarray, rates: np.ndarray) -> int:
    """Return how many of the currents, from the lowest on, come before the rates fall for good.

    They do where every further rate lies under 80 % of the highest one, and 5 Hz under it: a neuron in depolarisation
    block. The closed form of a LIF only rises.

    Args:
        currents: [K], pA, ascending.
        rates: [K], Hz.

    Example:
        >>> rising_branch(np.arange(5.0), np.array([0.0, 50.0, 90.0, 40.0, 3.0]))
        3
    """
    highest = int(np.argmax(rates))
    low = (rates < FALLEN * rates[highest]) & (rates < rates[highest] - LEAST_FALL)
    rising = np.flatnonzero(~low | (currents <= currents[highest]))
    return int(rising[-1]) + 1


def blocked(currents: np.ndarray, rates: np.ndarray) -> tuple[str, ...]:
    """Say which currents lie on a falling branch; nothing where there is none.

    Args:
        currents: [K], pA, ascending.
        rates: [K], Hz.
    """
    count, highest = rising_branch(currents, rates), int(np.argmax(rates))
    if count == len(rates):
        return ()
    return (
        f"the rates fall from {rates[highest]:.4g} Hz at {currents[highest]:.4g} pA to {rates[-1]:.4g} Hz at"
        f" {currents[-1]:.4g} pA, as in depolarisation block, which no LIF has: the {len(rates) - count} levels from"
        f" {currents[count]:.4g} pA on are left out",
    )


def poor_curve(table: Mapping[str, list[float]]) -> tuple[str, ...]:
    """Say where the fitted curve is none of the measured one.

    Args:
        table: from :meth:`FIFit.table`.
    """
    error, mean = curve_errors(table)["rmse"], float(np.mean(table["rate_Hz"]))
    if error <= POOR * mean:
        return ()
    return (f"the fitted curve is {error:.3g} Hz off where the mean rate is {mean:.3g} Hz: these are no LIF's rates",)


def fit_fi_curve(
    membrane: LIFParams,
    currents: np.ndarray,
    rates: np.ndarray,
    *,
    bounds: Bounds | None = None,
    tau_m_bounds: tuple[float, float] | None = None,
    seed: int = 0,
    num_starts: int = 16,
) -> FIFit:
    r"""Fit threshold, reset and refractory period to an f-I curve by its closed form.

    Minimises :math:`\mathrm{mean}\,(f(I) - \hat f)^2` with :func:`jaxlif.theory.firing_rate`, from several starts, with
    the membrane (tau_m, r_m, v_rest) fixed: an f-I curve alone does not determine r_m and v_rest, and tau_m badly. The
    fit is repeated on every second current to predict the others.

    Args:
        membrane: where tau_m, r_m and v_rest are taken from.
        currents: [K], pA, ascending.
        rates: [K], Hz.
        bounds: intervals of v_th, v_reset and t_ref.
        tau_m_bounds: fit tau_m too, within these bounds, ms.
        seed: of the starts.
        num_starts: number of starts.

    Returns:
        The :class:`FIFit`.

    Raises:
        ValueError: for shapes that differ, fewer than three currents, a negative rate, no rate above 0, or bounds that
            leave nothing of what the currents allow.

    Example:
        >>> truth = LIFParams(v_th=-52.0, v_reset=-64.0, t_ref=3.0)
        >>> currents = np.linspace(0.0, 600.0, 13)
        >>> result = fit_fi_curve(LIFParams(), currents, np.asarray(firing_rate(truth, currents)))
        >>> [round(x, 4) for x in (result.params.v_th, result.params.v_reset, result.params.t_ref)]
        [-52.0, -64.0, 3.0]
    """
    currents, rates = checked_rates(currents, rates)
    whole = np.ones(len(rates))
    even = (np.arange(len(rates)) % 2 == 0).astype(float)
    intervals = _intervals(membrane, currents, rates, bounds or {})
    intervals |= {"tau_m": tau_m_bounds} if tau_m_bounds else {}
    reset = (bounds or {}).get("v_reset", (-np.inf, np.inf))
    data = [Rates(jnp.asarray(currents), jnp.asarray(rates), jnp.asarray(w), reset) for w in (whole, even, 1.0 - even)]
    fits = [_fit_weighted(membrane, part, intervals, seed, num_starts) for part in data]
    predicted = [np.asarray(firing_rate(params, jnp.asarray(currents))) for params in fits]
    return FIFit(fits[0], predicted[0], np.where(even > 0, predicted[2], predicted[1]))


def checked_rates(currents: np.ndarray, rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return currents and rates [K] in double precision, or raise ValueError where they make no f-I curve.

    Args:
        currents: pA, in any order.
        rates: Hz, of the currents in their order.
    """
    currents = np.asarray(numbers("currents", currents, "pA", finite=False), float)
    rates = np.asarray(numbers("rates", rates, "Hz", finite=False), float)
    if currents.shape != rates.shape or currents.ndim != 1:
        raise ValueError(f"currents has shape {currents.shape} and rates {rates.shape}: both must be [K]")
    if len(set(currents.tolist())) < 3:
        raise ValueError(f"currents has {len(set(currents.tolist()))} levels: an f-I fit needs at least 3")
    if not np.isfinite(currents).all():
        raise ValueError("currents must be finite numbers of pA")
    if (bad := np.flatnonzero(~(np.isfinite(rates) & (rates >= 0)))).size:
        raise ValueError(f"rates[{bad[0]}] = {rates[bad[0]]:g} Hz: rates must be finite, 0 Hz or more")
    if not (rates > 0).any():
        raise ValueError("rates must be above 0 Hz for at least one current")
    return currents, rates


def _intervals(membrane, currents, rates, bounds):
    """Return the intervals of the coordinates: what the currents and the bounds of the parameters both allow."""
    unbounded = (-np.inf, np.inf)
    th_low, th_high = ((v - membrane.v_rest) / membrane.r_m for v in bounds.get("v_th", unbounded))
    # The threshold lies above the lowest reset.
    th_low = max(th_low, (bounds.get("v_reset", unbounded)[0] - membrane.v_rest) / membrane.r_m)
    ref_low, ref_high = bounds.get("t_ref", (0.0, 50.0))
    intervals = {
        "rheobase": (max(currents.min() - np.ptp(currents), th_low), min(currents.max(), th_high)),
        "reset_share": (0.0, 1.0),
        "t_ref": (ref_low, min(ref_high, 1000.0 / rates.max())),
    }
    for name, (low, high) in intervals.items():
        if not low < high:
            raise ValueError(f"bounds of v_th, v_reset and t_ref leave no {name}: {low:.4g} to {high:.4g}")
    return {name: (float(low), float(high)) for name, (low, high) in intervals.items()}


def _fit_weighted(membrane, target, intervals, seed, num_starts):
    onset = _onset(np.asarray(target.currents), np.asarray(target.rates))
    least, most = _depths(membrane.v_rest + membrane.r_m * onset, target.reset_bounds)
    guesses = {"rheobase": onset, "reset_share": float((10.0 - least) / (most - least))}
    inside = {n: g if intervals[n][0] < g < intervals[n][1] else 0.5 * sum(intervals[n]) for n, g in guesses.items()}
    low, high = intervals["t_ref"]
    start = FICoordinates(tau_m=membrane.tau_m, t_ref=low + 0.3 * (high - low), **inside)
    data = membrane, target
    # Past convergence L-BFGS divides differences that are rounding alone, and its line search may not return.
    settings = {"optimizer": lbfgs(), "num_steps": 150, "tolerance": 1e-7, "num_starts": num_starts, "spread": 1.0}
    result = multistart(_weighted_rate_mse, start, intervals, key=jax.random.key(seed), data=data, **settings)
    return jax.tree.map(float, uninterrupted(result).params.neuron(membrane, target.reset_bounds))


def _weighted_rate_mse(shape: FICoordinates, data: tuple[LIFParams, Rates]) -> Array:
    membrane, target = data
    errors = firing_rate(shape.neuron(membrane, target.reset_bounds), target.currents) - target.rates
    return jnp.sum(target.weights * errors**2) / jnp.sum(target.weights)


def _onset(currents, rates):
    """Return a current between the highest silent level and the lowest one that fires, a little below the latter."""
    firing = currents[rates > 0].min()
    silent = currents[(rates == 0) & (currents < firing)]
    below = silent.max() if silent.size else firing - 0.5 * np.ptp(currents) / len(currents)
    return float(0.7 * firing + 0.3 * below)
