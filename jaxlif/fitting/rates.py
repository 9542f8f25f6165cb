"""From tables of firing rates to neurons: one table and its membrane, or many cells that share a prior."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxlif.checks import choice, numbers, require_same_shape, whole
from jaxlif.fitting import fi_curve
from jaxlif.fitting.bounds import REAL, coordinates
from jaxlif.fitting.fit_recording import BOUNDS
from jaxlif.fitting.notes import at_bounds, spontaneous, unlikely_threshold
from jaxlif.fitting.result import RecordingFit
from jaxlif.neurons.lif import LIFParams
from jaxlif.recordings import SpikeRule

# The prior that cells start from, a textbook's neuron and wide: mean and standard deviation of every coordinate.
# Voltages and not currents, so that large and small cells are alike; logarithms of what is positive.
PRIOR = {
    "tau_m": (np.log(20.0), 1.0),  # log ms
    "threshold": (2.0, 1.0),  # v_th - v_rest, 10 mV
    "reset_depth": (np.log(10.0), 1.0),  # v_th - v_reset, log mV
    "t_ref": (np.log(3.0), 1.0),  # log ms
    "adaptation": (np.log(0.05), 1.5),  # log mV/Hz
    "noise": (np.log(5.0), 1.0),  # log pA: it varies less from cell to cell than in mV
    "r_m": (0.0, 1.0),  # log of its ratio to the passive line's
    "v_rest": (0.0, 3.0),  # its distance from the passive line's, 10 mV
}
NOT_POOLED = ("r_m", "v_rest")
# Rates depend on voltages over r_m only, so that any r_m gives the same. Small cells fire at small currents, though:
# r_m = R (I / 100 pA)^-P with I the current that fires first, from 40 cells of mouse visual cortex with passive steps,
# of which each is within 25 % of what the others say for 62 % of them (`experiments/fi_population.py`).
R_AT_100_PA, R_POWER, LEAST_ONSET = 0.142, 0.6, 10.0  # GΩ, 1, pA
VOLTAGE_NOISE = 0.1  # mV, the least standard deviation that a passive voltage is believed to have
STARTS = 8  # of every cell; with 4 the lowest minimum is one of luck


def fit_rates(
    currents: ArrayLike, rates: ArrayLike, membrane: LIFParams, *, free_tau_m: bool = False, seed: int = 0
) -> RecordingFit:
    """Fit a neuron to firing rates [K], Hz, at currents [K], pA, in double precision.

    They determine the rheobase, the refractory period and the curve's shape: r_m and v_rest are those of the membrane
    given, and tau_m unless it is freed. Fewer than three currents and rates that are all 0 are refused.

    Example:
        >>> from jaxlif import theory
        >>> currents = np.linspace(0.0, 600.0, 13)
        >>> result = fit_rates(currents, np.asarray(theory.firing_rate(LIFParams(t_ref=2.0), currents)), LIFParams())
        >>> round(result.params.t_ref, 4)
        2.0
    """
    coordinates(membrane, {name: BOUNDS[name] for name in ("tau_m", "r_m", "v_rest")})
    choice("free_tau_m", free_tau_m, (False, True))
    seed = whole("seed", seed)
    currents, rates = fi_curve.checked_rates(currents, rates)
    order = np.argsort(currents, kind="stable")
    currents, rates = currents[order], rates[order]
    falling = fi_curve.blocked(currents, rates)
    rising = slice(fi_curve.rising_branch(currents, rates))
    if len(np.unique(currents[rising])) < 3:
        raise ValueError(f"{falling[0]}, and fewer than the 3 that a fit needs come before them")
    limits = {name: BOUNDS[name] for name in ("v_th", "v_reset", "t_ref", *("tau_m",) * free_tau_m)}
    data, wide = (currents[rising], rates[rising]), BOUNDS | {"v_th": REAL, "v_reset": (BOUNDS["v_reset"][0], np.inf)}
    params, curve = fi_curve.fit_fi_curve(membrane, *data, bounds=wide, free_tau_m=free_tau_m, seed=seed)
    return RecordingFit(
        model="lif",
        params=params,
        scores={"f_i": fi_curve.curve_errors(curve)},
        # The search knows no upper end of v_th and v_reset: bounds that they left, as a note says, are none of theirs.
        bounds={name: pair for name, pair in limits.items() if pair[0] <= getattr(params, name) <= pair[1]},
        window=(0.0, 0.0),
        protocol="rates",
        spike_rule=SpikeRule(),
        spike_cut=(0.0, 0.0),
        data={"name": "", "sha256": ""},
        seed=seed,
        warnings=("r_m and v_rest were given, not fitted: firing rates do not determine them",)
        + falling
        + fi_curve.poor_curve(curve)
        + spontaneous(params)
        + at_bounds(params, limits)
        + unlikely_threshold(params, currents),
        curve=curve,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class FICell:
    """The firing rates of one cell under constant currents, and its voltages where it does not fire."""

    name: str  # unlike any other cell's
    currents: ArrayLike  # [K], pA, in any order; a current may occur several times
    rates: ArrayLike  # [K], Hz
    passive_currents: ArrayLike | None = None  # [P], pA, of steps without a spike
    passive_voltages: ArrayLike | None = None  # [P], mV, at the end of those steps
    v_rest: float = -70.0  # mV; used where the passive steps are not


@dataclass(frozen=True, kw_only=True, eq=False)
class Population:
    """The fitted cells, in the order they were given in, without those that could not be fitted."""

    names: tuple[str, ...]
    params: LIFParams  # leaves [cells]
    adaptation: Float[np.ndarray, " cells"] | None  # pA/Hz, the mean current that a rate of 1 Hz takes away
    noise: Float[np.ndarray, " cells"] | None  # pA, by what the rheobase varies from trial to trial
    rmse: Float[np.ndarray, " cells"]  # Hz, of the fitted rates
    failed: dict[str, str]  # why a cell was not fitted, by its name

    def rates(self, name: str, currents: ArrayLike) -> np.ndarray:
        """Return the rates, Hz, of the cell of this name at ``currents``, pA, any shape."""
        if name not in self.names:
            raise ValueError(f"name = {name!r}: no fitted cell; {self.failed.get(name, 'it was not among the cells')}")
        row, cells = self.names.index(name), (self.params, self.adaptation, self.noise)
        params, adaptation, noise = jax.tree.map(lambda x: float(x[row]), cells)
        with jax.enable_x64(True):
            return np.asarray(fi_curve.steady_rate(params, np.asarray(currents, float), adaptation, noise))


def fit_fi_population(
    cells: Sequence[FICell],
    *,
    adaptation: bool = False,
    noise: bool = True,
    passive: str | None = "joint",
    seed: int = 0,
) -> Population:
    r"""Fit LIF neurons to the f-I curves of many cells, all cells and starts in one compiled call.

    .. math::
        \min \; \sum_k (f(I_k) - \hat f_k)^2 / s^2 + \sum_p (v_{rest} + r_m I_p - \hat v_p)^2 / \sigma^2
        + (z - \mu)^T \Sigma^{-1} (z - \mu)

    with f of :func:`jaxlif.theory.firing_rate`, averaged over a rheobase that varies, and :math:`\sigma` the residual
    of the cell's own passive line. A curve has few currents that fire for its five or six numbers, so the cells share a
    normal prior of their coordinates z, which is learned from all of them, each cell's noise s from its own curve.

    Args:
        cells: any number; one that cannot be fitted stops no other.
        adaptation: fit a spike-triggered current as well; ``params`` alone are then not the whole neuron.
        noise: let the rheobase vary from trial to trial, as it does in cells: the curve bends where it would break.
            Without, ``params`` alone are the whole neuron, and currents between those that were fitted are met worse.
        passive: "joint" fits r_m and v_rest to the passive voltages together with the rates, which say next to nothing
            about them; None sets r_m to what is usual for the current at which a cell starts to fire, good to some
            30 %, and v_rest to the cell's.
        seed: of the starts.

    Example:
        >>> from jaxlif.theory import firing_rate
        >>> truth = LIFParams(r_m=0.2, v_th=-50.0, v_reset=-60.0, t_ref=3.0)
        >>> steps, currents = np.array([-100.0, -50.0, -20.0]), np.linspace(20.0, 400.0, 20)
        >>> table = {"currents": currents, "rates": np.asarray(firing_rate(truth, currents))}
        >>> cell = FICell(name="a", **table, passive_currents=steps, passive_voltages=-70.0 + 0.2 * steps)
        >>> fitted = fit_fi_population([cell], noise=False).params
        >>> [round(float(x[0]), 1) for x in (fitted.tau_m, fitted.r_m, fitted.v_th, fitted.v_reset, fitted.t_ref)]
        [10.0, 0.2, -50.0, -60.0, 3.0]
    """
    choice("passive", passive, ("joint", None))
    extra = {name: choice(name, x, (False, True)) for name, x in {"adaptation": adaptation, "noise": noise}.items()}
    names = ["tau_m", "threshold", "reset_depth", "t_ref", *(name for name, wanted in extra.items() if wanted)]
    model = _Model((*names, *NOT_POOLED)) if passive else _Model(tuple(names))
    problems, failed = _problems(cells, passive is not None)
    data = jax.tree.map(_stacked, *problems.values())
    with jax.enable_x64(True):
        z, squares = fi_curve.fit_pooled(
            model, data, model.starts(data, whole("seed", seed)), *model.prior, pooled=len(names)
        )
        params, slope, varies = jax.tree.map(np.asarray, jax.vmap(model.neuron)(z, data))
    finite = np.isfinite(squares)
    failed |= {
        name: f"cell {name}: no start of the fit stayed finite"
        for name, well in zip(problems, finite, strict=True)
        if not well
    }
    params, slope, varies = jax.tree.map(lambda x: x[finite], (params, slope, varies))
    return Population(
        names=tuple(name for name in problems if name not in failed),
        params=params,
        adaptation=slope,
        noise=varies,
        rmse=np.sqrt(squares / data.weights.sum(axis=1))[finite],
        failed=failed,
    )


class _Problem(NamedTuple):
    """One cell to fit, or, with an axis in front, all of them; weights are 0 where padded."""

    currents: Any  # [K], pA; NumPy arrays here, JAX arrays where it is fitted
    rates: Any  # [K], Hz
    weights: Any  # [K], 0 or 1
    onset: Any  # pA
    steps: Any  # [P], pA, empty unless r_m is fitted
    voltages: Any  # [P], mV
    step_weights: Any  # [P], 1/mV
    r_m: Any  # GΩ, from the passive steps, or the convention
    v_rest: Any  # mV


def _problems(cells: Sequence[FICell], passive: bool) -> tuple[dict[str, _Problem], dict[str, str]]:
    """Return what can be fitted, by name, and by name why the others cannot."""
    found, failed = {}, {}
    for cell in cells:
        if cell.name in found or cell.name in failed:
            raise ValueError(f"cell {cell.name}: the name occurs twice: names must differ")
        try:
            found[cell.name] = _problem(cell, passive)
        except ValueError as error:
            failed[cell.name] = f"cell {cell.name}: {error}"
    if not found:
        raise ValueError(next(iter(failed.values()), "cells are empty: at least one is needed"))
    return found, failed


def _problem(cell: FICell, passive: bool) -> _Problem:
    currents, rates = fi_curve.checked_rates(cell.currents, cell.rates)
    curve = currents, rates, np.ones(len(rates)), np.array(fi_curve.onset(currents, rates))
    v_rest = numbers("v_rest", cell.v_rest, "mV", rank=0, finite=not passive)
    if not passive:
        nothing = np.zeros(0)
        r_m = typical_resistance(float(curve[-1]))
        return _Problem(*curve, nothing, nothing, nothing, np.array(r_m), np.array(v_rest))
    if cell.passive_currents is None or cell.passive_voltages is None:
        raise ValueError("r_m is not determined without passive_currents and passive_voltages; or pass passive=None")
    steps = np.asarray(numbers("passive_currents", cell.passive_currents, "pA", rank=1), float)
    voltages = np.asarray(numbers("passive_voltages", cell.passive_voltages, "mV", rank=1), float)
    require_same_shape(passive_currents=steps, passive_voltages=voltages)
    if (levels := len(np.unique(steps))) < 2:
        raise ValueError(f"r_m is not determined: passive_currents have {levels} levels, at least 2 are needed")
    r_m, v_rest = np.polyfit(steps, voltages, 1)
    if r_m <= 0.0:
        raise ValueError(f"r_m = {r_m:.3g} GΩ by the passive steps: r_m must be positive")
    scatter = np.sqrt(np.sum((voltages - v_rest - r_m * steps) ** 2) / max(1, len(steps) - 2))
    weights = np.full(len(steps), 1.0 / max(scatter, VOLTAGE_NOISE))
    return _Problem(*curve, steps, voltages, weights, np.array(r_m), np.array(v_rest))


def typical_resistance(onset: float) -> float:
    """Return the r_m, GΩ, that cells have which start to fire at a current, pA.

    Example:
        >>> round(typical_resistance(200.0), 4)
        0.0937
    """
    return float(R_AT_100_PA * (max(onset, LEAST_ONSET) / 100.0) ** -R_POWER)


def _stacked(*arrays: np.ndarray) -> np.ndarray:
    """Stack arrays of different lengths, the shorter ones filled up with zeros."""
    length = max(a.size for a in arrays)
    return np.stack([np.pad(a, (0, length - a.size)) if a.ndim else a for a in arrays])


@dataclass(frozen=True)
class _Model:
    """The coordinates of a fit, by name."""

    names: tuple[str, ...]

    @property
    def prior(self) -> np.ndarray:
        """Mean and deviation of each coordinate before any cell is seen, [2, names]."""
        return np.array([PRIOR[name] for name in self.names]).T

    def neuron(self, z: Any, problem: _Problem) -> tuple[Any, ...]:
        """Return the parameters, and what their rates need beside them: pA/Hz and pA, None without."""
        x = dict(zip(self.names, z, strict=True))
        r_m = problem.r_m * jnp.exp(x["r_m"]) if "r_m" in x else jnp.asarray(problem.r_m)
        v_rest = problem.v_rest + 10.0 * x.get("v_rest", 0.0)
        v_th = v_rest + 10.0 * x["threshold"]
        v_reset = v_th - jnp.exp(x["reset_depth"])
        tau_m, t_ref = jnp.exp(x["tau_m"]), jnp.exp(x["t_ref"])
        params = LIFParams(tau_m=tau_m, r_m=r_m, v_rest=v_rest, v_th=v_th, v_reset=v_reset, t_ref=t_ref)
        adaptation, noise = (jnp.exp(x[n]) if n in x else None for n in ("adaptation", "noise"))
        return params, None if adaptation is None else adaptation / r_m, noise

    def __call__(self, z: Any, problem: _Problem) -> tuple[Any, Any]:
        """Return what the coordinates leave over of the rates, Hz, and of the passive voltages, in units of noise."""
        params, adaptation, noise = self.neuron(z, problem)
        passive = params.v_rest + params.r_m * problem.steps - problem.voltages
        rates = fi_curve.steady_rate(params, problem.currents, adaptation, noise)
        return problem.weights * (rates - problem.rates), problem.step_weights * passive

    def starts(self, problems: _Problem, seed: int) -> np.ndarray:
        """Return coordinates [cells, starts, n]: the prior's mean at the observed onset, and draws around it."""
        mean, spread = self.prior
        draws = np.random.default_rng(seed).normal(size=(STARTS, len(self.names)))
        draws[0] = 0.0
        spread = np.where([name in (*NOT_POOLED, "threshold") for name in self.names], 0.02, 0.7) * spread
        z = np.tile(mean + spread * draws, (len(problems.onset), 1, 1))
        row = self.names.index("threshold")
        z[:, :, row] += (0.1 * problems.r_m * problems.onset - mean[row])[:, None]
        return z
