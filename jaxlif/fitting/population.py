"""The f-I curves of many cells, fitted at once: one compiled call over cells and starts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.typing import ArrayLike

from jaxlif.checks import choice, whole
from jaxlif.fitting.fi_cells import FICell, half_of, passive_line, sorted_cell, usable_cells
from jaxlif.fitting.pooling import Errors, fit_pooled
from jaxlif.fitting.steady_rate import adapted_rate, noisy_rate
from jaxlif.neurons.lif import LIFParams, Parameter
from jaxlif.theory import firing_rate

PASSIVE = ("joint", "fixed", None)
R_WITHOUT_PASSIVE = 0.1  # GΩ; rates depend on voltages over r_m only, so that any value gives the same rates
VOLTAGE_NOISE = 0.1  # mV, the least standard deviation that a passive voltage is believed to have

# The prior that the cells start from, a textbook's neuron and wide: mean and standard deviation of every coordinate.
# Voltages and not currents, so that large and small cells are alike; logarithms of what is positive.
PRIOR = {
    "tau_m": (np.log(20.0), 1.0),  # log ms
    "threshold": (2.0, 1.0),  # v_th - v_rest, 10 mV
    "reset_depth": (np.log(10.0), 1.0),  # v_th - v_reset, log mV
    "t_ref": (np.log(3.0), 1.0),  # log ms
    "adaptation": (np.log(0.05), 1.5),  # log mV/Hz
    "noise": (np.log(0.5), 1.0),  # log mV
    "r_m": (0.0, 1.0),  # log of its ratio to the passive line's
    "v_rest": (0.0, 3.0),  # its distance from the passive line's, 10 mV
}
NOT_POOLED = ("r_m", "v_rest")


@dataclass(frozen=True, kw_only=True, eq=False)
class Population:
    """The fitted cells, in the order they were given in, without those that could not be fitted.

    Args:
        names: of the fitted cells.
        params: leaves [cells].
        adaptation: [cells], pA/Hz, the mean current that a rate of 1 Hz takes away; None in a fit without it.
        noise: [cells], pA, by what the rheobase varies from trial to trial; None in a fit without it.
        rmse: [cells], Hz, root mean square error of the fitted rates.
        failed: why a cell was not fitted, by its name.
    """

    names: tuple[str, ...]
    params: LIFParams
    adaptation: np.ndarray | None
    noise: np.ndarray | None
    rmse: np.ndarray
    failed: dict[str, str]

    def rates(self, name: str, currents: ArrayLike) -> np.ndarray:
        """Return the fitted cell's rates, Hz, at ``currents``, pA, any shape.

        Raises:
            ValueError: for a name that is not among the fitted cells.

        Example:
            >>> params = LIFParams(**{n: np.array([x]) for n, x in vars(LIFParams()).items()})
            >>> cells = Population(
            ...     names=("a",), params=params, adaptation=None, noise=None, rmse=np.zeros(1), failed={}
            ... )
            >>> cells.rates("a", [120.0, 160.0]).round(4).tolist()
            [0.0, 34.5078]
        """
        if name not in self.names:
            raise ValueError(f"name = {name!r}: no fitted cell; {self.failed.get(name, 'it was not among the cells')}")
        row = self.names.index(name)
        with jax.enable_x64(True):
            neuron = _Neuron(*jax.tree.map(lambda x: float(x[row]), (self.params, self.adaptation, self.noise)))
            return np.asarray(neuron.rates(jnp.asarray(currents, float)))


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """Rates predicted from the other half of a cell's currents.

    Args:
        names: of the cells.
        currents: for each cell its currents [K], pA, sorted.
        rates: for each cell its measured rates [K], Hz, in that order.
        predicted: for each cell [K], Hz, every rate by the fit that did not see its current.
        rmse: [cells], Hz, mean of the two halves' root mean square errors.
        failed: why a cell has no prediction, by its name.
    """

    names: tuple[str, ...]
    currents: tuple[np.ndarray, ...]
    rates: tuple[np.ndarray, ...]
    predicted: tuple[np.ndarray, ...]
    rmse: np.ndarray
    failed: dict[str, str]


def fit_fi_population(
    cells: Sequence[FICell],
    *,
    adaptation: bool = False,
    noise: bool = False,
    passive: str | None = "joint",
    num_starts: int = 4,
    seed: int = 0,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> Population:
    r"""Fit LIF neurons to the f-I curves of many cells, all cells and starts in one compiled call.

    .. math::
        \min \; \sum_k (f(I_k) - \hat f_k)^2 / s^2 + \sum_p (v_{rest} + r_m I_p - \hat v_p)^2 / \sigma^2
        + (z - \mu)^T \Sigma^{-1} (z - \mu)

    in double precision, with f of :func:`jaxlif.theory.firing_rate`, :func:`adapted_rate` or :func:`noisy_rate`, and
    :math:`\sigma` the residual of the cell's own passive line, at least 0.1 mV. A curve has few currents that fire for
    its five or six numbers, so the cells share a normal prior of their coordinates z (voltages, and logarithms of
    what is positive). Its :math:`\mu` and :math:`\Sigma` are learned from all cells, and each cell's noise s from its
    own curve, by :func:`jaxlif.fitting.pooling.fit_pooled`. Rates depend on voltages over r_m alone: they say next to
    nothing about r_m and v_rest, so that "joint" and "fixed" agree.

    Args:
        cells: any number; one that cannot be fitted stops no other.
        adaptation: fit a spike-triggered current as well.
        noise: let the rheobase vary from trial to trial, which bends the curve where it would break. ``params`` alone
            are then not the whole neuron; without it and ``adaptation`` their closed form is the fitted curve.
        passive: "joint" fits r_m and v_rest to the passive voltages together with the rates; "fixed" takes them from
            the line through the passive voltages; None sets r_m to 0.1 GΩ, a convention, and v_rest to the cell's.
        num_starts: of every cell; the one that ends lowest is kept.
        seed: of the starts.
        mesh: devices over whose first axis the cells are spread.
        progress: show a progress bar.

    Returns:
        The :class:`Population`.

    Raises:
        ValueError: for another ``passive``, fewer than one start, names that occur twice, or where no cell can be
            fitted.

    Example:
        >>> truth = LIFParams(r_m=0.2, v_th=-50.0, v_reset=-60.0, t_ref=3.0)
        >>> steps, currents = np.array([-100.0, -50.0, -20.0]), np.linspace(20.0, 400.0, 20)
        >>> cell = FICell(
        ...     name="a", currents=currents, rates=np.asarray(firing_rate(truth, currents)),
        ...     passive_currents=steps, passive_voltages=-70.0 + 0.2 * steps,
        ... )
        >>> bad = FICell(name="b", currents=currents, rates=np.zeros(20))
        >>> population = fit_fi_population([cell, bad])
        >>> fitted = population.params
        >>> [round(float(x[0]), 1) for x in (fitted.tau_m, fitted.r_m, fitted.v_th, fitted.v_reset, fitted.t_ref)]
        [10.0, 0.2, -50.0, -60.0, 3.0]
        >>> population.failed["b"]
        'cell b: rates are 0 Hz at every current: at least one must be above 0 Hz'
    """
    options = _Options(adaptation, noise, passive, num_starts, seed, mesh, progress)
    _check_options(cells, options)
    good, failed = usable_cells(cells, passive)
    return _fit(good, np.zeros(len(good), int), failed, options)


def held_out_rmse(cells: Sequence[FICell], **options: Any) -> HeldOut:
    r"""Fit every second current of every cell and predict the others, and the reverse, in one compiled call.

    .. math::
        \tfrac12 \sum_{h} \sqrt{\mathrm{mean}_{k \in h} (f_{\bar h}(I_k) - \hat f_k)^2}

    over the two halves h of the sorted distinct currents, :math:`f_{\bar h}` fitted to the other half. The two halves
    of the cells are two populations: nothing that is learned from one enters the other.

    Args:
        cells: as for :func:`fit_fi_population`.
        **options: of :func:`fit_fi_population`.

    Returns:
        The :class:`HeldOut`; a cell fails if either half does.

    Raises:
        ValueError: as :func:`fit_fi_population`.

    Example:
        >>> currents = np.linspace(20.0, 400.0, 20)
        >>> cell = FICell(name="a", currents=currents, rates=np.asarray(firing_rate(LIFParams(), currents)))
        >>> bool(held_out_rmse([cell], passive=None).rmse[0] < 0.1)
        True
    """
    chosen = _Options(**options)
    _check_options(cells, chosen)
    good, failed = usable_cells(cells, chosen.passive)
    halves = {(c.name, h): replace(half_of(c, h), name=f"{c.name}, half {h}") for c in good for h in (0, 1)}
    fitting, reasons = usable_cells(list(halves.values()), chosen.passive)
    kept = {cell.name for cell in fitting}
    groups = np.array([h for (_, h), half in halves.items() if half.name in kept])
    population = _fit(fitting, groups, reasons, chosen)
    for (name, _), half in halves.items():
        if half.name in population.failed:
            failed.setdefault(name, population.failed[half.name])
    scored = [sorted_cell(c) for c in good if c.name not in failed]
    predicted = tuple(_cross_prediction(cell, population) for cell in scored)
    return HeldOut(
        names=tuple(cell.name for cell in scored),
        currents=tuple(cell.currents for cell in scored),
        rates=tuple(cell.rates for cell in scored),
        predicted=predicted,
        rmse=np.array([_mean_half_error(c, f) for c, f in zip(scored, predicted, strict=True)]),
        failed=failed,
    )


class _Options(NamedTuple):
    """What :func:`fit_fi_population` is asked for beside the cells."""

    adaptation: bool = False
    noise: bool = False
    passive: str | None = "joint"
    num_starts: int = 4
    seed: int = 0
    mesh: Mesh | None = None
    progress: bool = False


def _check_options(cells, options):
    choice("passive", options.passive, PASSIVE)
    for name in ("adaptation", "noise"):
        choice(name, getattr(options, name), (False, True))
    whole("num_starts", options.num_starts, 1)
    whole("seed", options.seed)
    names = [cell.name for cell in cells]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"cell {twice[0]}: the name occurs {names.count(twice[0])} times: names must differ")


class _Neuron(NamedTuple):
    """A neuron with what its rates need beside its parameters: pA/Hz and pA, None without."""

    params: LIFParams
    adaptation: Parameter | None
    noise: Parameter | None

    def rates(self, currents: Array) -> Array:
        if self.noise is not None:
            return noisy_rate(self.params, self.noise, currents, self.adaptation)
        if self.adaptation is not None:
            return adapted_rate(self.params, self.adaptation, currents)
        return firing_rate(self.params, currents)


class _Problem(NamedTuple):
    """One cell to fit, or, with an axis in front, all of them; weights are 0 where padded."""

    currents: Any  # [K], pA; NumPy arrays here, JAX arrays where it is fitted
    rates: Any  # [K], Hz
    weights: Any  # [K], 0 or 1
    steps: Any  # [P], pA, empty unless r_m is fitted
    voltages: Any  # [P], mV
    step_weights: Any  # [P], 1/mV
    r_m: Any  # GΩ, from the passive steps, or the convention
    v_rest: Any  # mV


@dataclass(frozen=True)
class _Model:
    """The coordinates of a fit, by name."""

    names: tuple[str, ...]

    def neuron(self, z: Array, problem: _Problem) -> _Neuron:
        x = dict(zip(self.names, z, strict=True))
        r_m = problem.r_m * jnp.exp(x["r_m"]) if "r_m" in x else jnp.asarray(problem.r_m)
        v_rest = problem.v_rest + 10.0 * x.get("v_rest", 0.0)
        v_th = v_rest + 10.0 * x["threshold"]
        v_reset = v_th - jnp.exp(x["reset_depth"])
        tau_m, t_ref = jnp.exp(x["tau_m"]), jnp.exp(x["t_ref"])
        params = LIFParams(tau_m=tau_m, r_m=r_m, v_rest=v_rest, v_th=v_th, v_reset=v_reset, t_ref=t_ref)
        return _Neuron(params, *(jnp.exp(x[n]) / r_m if n in x else None for n in ("adaptation", "noise")))

    def __call__(self, z: Array, problem: _Problem) -> Errors:
        """Return what the coordinates leave over; a method of another name would be compiled anew for each model."""
        neuron = self.neuron(z, problem)
        passive = neuron.params.v_rest + neuron.params.r_m * problem.steps - problem.voltages
        rates = neuron.rates(problem.currents)
        return Errors(problem.weights * (rates - problem.rates), problem.step_weights * passive)


def _model(options: _Options) -> _Model:
    names = ("tau_m", "threshold", "reset_depth", "t_ref")
    extra = ("adaptation",) * options.adaptation + ("noise",) * options.noise
    return _Model(names + extra + NOT_POOLED * (options.passive == "joint"))


def _fit(cells: list[FICell], groups: np.ndarray, failed: dict[str, str], options: _Options) -> Population:
    """Fit every group of cells as a population of its own."""
    model, problem = _model(options), _padded([_problem(cell, options.passive) for cell in cells])
    mean, spread = np.array([PRIOR[name] for name in model.names]).T
    with jax.enable_x64(True):
        found = fit_pooled(
            model,
            problem,
            _starts(model, cells, problem, options),
            mean=mean,
            spread=spread,
            counts=problem.weights.sum(axis=1),
            groups=groups,
            pooled=sum(name not in NOT_POOLED for name in model.names),
            mesh=options.mesh,
            progress=options.progress,
        )
        neurons, rates = jax.tree.map(np.asarray, _predict(model, found.coordinates, problem))
    finite = np.isfinite(found.coordinates).all(axis=1) & np.isfinite(rates).all(axis=1)
    stuck = {cell.name for cell, well in zip(cells, finite, strict=True) if not well}
    squares = (problem.weights * (rates - problem.rates) ** 2).sum(axis=1) / problem.weights.sum(axis=1)
    params, slope, noise = jax.tree.map(lambda x: x[finite], neurons)
    return Population(
        names=tuple(cell.name for cell in cells if cell.name not in stuck),
        params=params,
        adaptation=slope,
        noise=noise,
        rmse=np.sqrt(squares[finite]),
        failed=failed | {name: f"cell {name}: no start of the fit stayed finite" for name in sorted(stuck)},
    )


def _problem(cell: FICell, passive: str | None) -> _Problem:
    currents, rates = np.asarray(cell.currents, float), np.asarray(cell.rates, float)
    steps = voltages = np.zeros(0)
    r_m, v_rest, sigma = R_WITHOUT_PASSIVE, float(cell.v_rest), 0.0
    if passive is not None:
        steps, voltages = np.asarray(cell.passive_currents, float), np.asarray(cell.passive_voltages, float)
        r_m, v_rest, sigma = passive_line(steps, voltages)
    if passive != "joint":
        steps = voltages = np.zeros(0)
    step_weights = np.full(len(steps), 1.0 / max(sigma, VOLTAGE_NOISE))
    return _Problem(
        currents, rates, np.ones(len(rates)), steps, voltages, step_weights, np.array(r_m), np.array(v_rest)
    )


def _padded(problems: list[_Problem]) -> _Problem:
    """Stack problems; zeros fill up the shorter ones, and their weights are zeros too."""

    def stack(*arrays):
        length = max(a.size for a in arrays)
        return np.stack([np.pad(a, (0, length - a.size)) if a.ndim else a for a in arrays])

    return jax.tree.map(stack, *problems)


def _starts(model, cells, problem, options):
    """Return coordinates [cells, starts, n]: the prior's mean at the observed onset, and draws around it."""
    draws = np.random.default_rng(int(options.seed)).normal(size=(options.num_starts, len(model.names)))
    draws[0] = 0.0
    mean, spread = np.array([PRIOR[name] for name in model.names]).T
    spread = np.where([name in (*NOT_POOLED, "threshold") for name in model.names], 0.02, 0.7) * spread
    z = np.tile(mean + spread * draws, (len(cells), 1, 1))
    onsets = [_onset(np.asarray(c.currents, float), np.asarray(c.rates, float)) for c in cells]
    row = model.names.index("threshold")
    z[:, :, row] += (0.1 * problem.r_m * onsets - mean[row])[:, None]
    return z


def _onset(currents, rates):
    """Return a current between the lowest one that fires and the silent one below it, nearer to the first."""
    firing = currents[rates > 0].min()
    silent = currents[currents < firing]
    below = silent.max() if silent.size else firing - 0.5 * np.ptp(currents) / len(currents)
    return 0.7 * firing + 0.3 * below


@partial(jax.jit, static_argnums=0)
def _predict(model, z, problem):
    """Return the neurons and their rates at the problems' currents."""

    def one(z, problem):
        neuron = model.neuron(z, problem)
        return neuron, neuron.rates(problem.currents)

    return jax.vmap(one)(z, problem)


def _cross_prediction(cell: FICell, population: Population) -> np.ndarray:
    """Return the rates of a sorted cell, each by the half that its current is not in."""
    member = np.unique(cell.currents, return_inverse=True)[1] % 2
    even, odd = (population.rates(f"{cell.name}, half {half}", cell.currents) for half in (0, 1))
    return np.where(member == 0, odd, even)


def _mean_half_error(cell, predicted):
    member = np.unique(cell.currents, return_inverse=True)[1] % 2
    squares = (predicted - cell.rates) ** 2
    return np.mean([np.sqrt(squares[member == half].mean()) for half in (0, 1)])
