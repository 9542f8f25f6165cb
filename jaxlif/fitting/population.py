"""The f-I curves of many cells, fitted at once: one compiled call over cells and starts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec
from jax.typing import ArrayLike
from tqdm import tqdm

from jaxlif.neurons.lif import LIFParams, Parameter
from jaxlif.theory import firing_rate, rheobase

PASSIVE = ("joint", "fixed", None)
R_WITHOUT_PASSIVE = 0.1  # GΩ; rates depend on voltages over r_m only, so that any value gives the same rates
VOLTAGE_NOISE = 0.1  # mV, the least standard deviation that a passive voltage is believed to have
CHUNKS, CHUNK_STEPS = 15, 10  # updates of a fit: their product
SPREAD = {"tau_m": 1.0, "rheobase": 0.3, "reach": 1.0, "t_ref": 1.0, "adaptation": 1.0, "r_m": 0.1, "v_rest": 0.1}


@dataclass(frozen=True, kw_only=True, eq=False)
class FICell:
    """The firing rates of one cell under constant currents, and its voltages where it does not fire.

    Args:
        name: of the cell, unlike any other's.
        currents: [K], pA, in any order; a current may occur several times.
        rates: [K], Hz.
        passive_currents: [P], pA, of steps without a spike; None where there are none.
        passive_voltages: [P], mV, at the end of those steps.
        v_rest: resting potential, mV; used where the passive steps are not.
    """

    name: str
    currents: np.ndarray
    rates: np.ndarray
    passive_currents: np.ndarray | None = None
    passive_voltages: np.ndarray | None = None
    v_rest: float = -70.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Population:
    """The fitted cells, in the order they were given in, without those that could not be fitted.

    Args:
        names: of the fitted cells.
        params: leaves [cells].
        adaptation: [cells], pA/Hz, the mean current that a rate of 1 Hz takes away; None in a fit without it.
        rmse: [cells], Hz, root mean square error of the fitted rates.
        failed: why a cell was not fitted, by its name.
    """

    names: tuple[str, ...]
    params: LIFParams
    adaptation: np.ndarray | None
    rmse: np.ndarray
    failed: dict[str, str]

    def rates(self, name: str, currents: ArrayLike) -> np.ndarray:
        """Return the fitted cell's rates, Hz, at ``currents``, pA, any shape.

        Raises:
            ValueError: for a name that is not among the fitted cells.

        Example:
            >>> params = LIFParams(**{n: np.array([x]) for n, x in vars(LIFParams()).items()})
            >>> cells = Population(names=("a",), params=params, adaptation=None, rmse=np.zeros(1), failed={})
            >>> cells.rates("a", [120.0, 160.0]).round(4).tolist()
            [0.0, 34.5078]
        """
        if name not in self.names:
            raise ValueError(f"name = {name!r}: no fitted cell; {self.failed.get(name, 'it was not among the cells')}")
        with jax.enable_x64(True):
            cell = jax.tree.map(lambda x: float(x[self.names.index(name)]), (self.params, self.adaptation))
            return np.asarray(_rates(cell[0], cell[1], jnp.asarray(currents, float)))


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


def adapted_rate(params: Any, adaptation: ArrayLike, current: ArrayLike) -> Array:
    r"""Find the steady firing rate where every spike triggers a current against the next ones.

    .. math::
        f = F(I - A f)

    with F of :func:`jaxlif.theory.firing_rate`. Solved as its inverse, :math:`F^{-1}(f) + A f = I`, whose left side is
    convex: Newton's method falls on the root from above. The gradient is that of the implicit function.

    Args:
        params: the neuron; scalars.
        adaptation: A, pA/Hz, 0 or more: strength times time constant of the triggered current; scalar.
        current: I, pA, any shape.

    Returns:
        The rate, Hz, of the current's shape; 0 at and below rheobase.

    Example:
        >>> rate = adapted_rate(LIFParams(), 1.0, jnp.array([120.0, 160.0, 300.0]))
        >>> rate.round(3).tolist()
        [0.0, 9.818, 69.009]
        >>> firing_rate(LIFParams(), 300.0 - 1.0 * rate[2]).round(3).tolist()
        69.009

    Source: Benda & Herz 2003, doi:10.1162/089976603322385063 (a rate that adapts by a subtracted current).
    """
    current = jnp.asarray(current)
    overdrive = current - rheobase(params)
    fires = overdrive > 0
    # A current that fires, where this one does not, keeps that branch finite: its gradient is multiplied by 0.
    safe = jnp.where(fires, overdrive, 1.0)
    return jnp.where(fires, _root(params, jnp.asarray(adaptation, current.dtype), safe), 0.0)


def _root(params: Any, adaptation: Array, overdrive: Array) -> Array:
    reach = (params.v_th - params.v_reset) / params.r_m

    def excess(rate):
        x = (1000.0 / rate - params.t_ref) / params.tau_m
        return reach * jnp.exp(-x) / -jnp.expm1(-x) + adaptation * rate - overdrive

    def slope_of(function, rate):
        return jax.jvp(function, (rate,), (jnp.ones_like(rate),))

    def solve(function, rate):
        def newton(_, rate):
            value, slope = slope_of(function, rate)
            return rate - jnp.where(value > 0, value / slope, 0.0)

        return jax.lax.fori_loop(0, 40, newton, rate)

    plain = 1000.0 / (params.t_ref + params.tau_m * jnp.log1p(reach / overdrive))
    linear = overdrive / jnp.maximum(adaptation, jnp.finfo(overdrive.dtype).tiny)
    guess = jax.lax.stop_gradient(jnp.minimum(plain, linear))  # each of them lies above the root
    return jax.lax.custom_root(excess, guess, solve, lambda g, y: y / g(jnp.ones_like(y)))


def fit_fi_population(
    cells: Sequence[FICell],
    *,
    adaptation: bool = False,
    passive: str | None = "joint",
    num_starts: int = 8,
    seed: int = 0,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> Population:
    r"""Fit LIF neurons to the f-I curves of many cells, all cells and starts in one compiled call.

    .. math::
        \min \; \mathrm{mean}_k (f(I_k) - \hat f_k)^2 + \mathrm{mean}_p (v_{rest} + r_m I_p - \hat v_p)^2 / \sigma^2

    in double precision by Levenberg and Marquardt's method, with f of :func:`jaxlif.theory.firing_rate` or
    :func:`adapted_rate`, and :math:`\sigma` the residual of the cell's own passive line, at least 0.1 mV. Rates depend
    on tau_m, t_ref, :math:`(v_{th} - v_{rest}) / r_m` and :math:`(v_{th} - v_{reset}) / r_m` alone: they say nothing
    about r_m and v_rest, so that "joint" and "fixed" agree.

    Args:
        cells: any number; one that cannot be fitted stops no other.
        adaptation: fit a spike-triggered current as well.
        passive: "joint" fits r_m and v_rest to the passive voltages together with the rates; "fixed" takes them from
            the line through the passive voltages; None sets r_m to 0.1 GΩ, a convention, and v_rest to the cell's.
        num_starts: of every cell; the one that ends lowest is kept.
        seed: of the starts, which are the same for every cell.
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
        >>> population = fit_fi_population([cell, bad], passive="fixed")
        >>> fitted = population.params
        >>> [round(float(x[0]), 2) for x in (fitted.tau_m, fitted.r_m, fitted.v_th, fitted.v_reset, fitted.t_ref)]
        [10.0, 0.2, -50.0, -60.0, 3.0]
        >>> population.failed["b"]
        'cell b: rates are 0 Hz at every current: at least one must be above 0 Hz'

    Source: Marquardt 1963, doi:10.1137/0111030 (the optimiser).
    """
    _check_options(cells, passive, num_starts)
    good, failed = _usable(cells, passive)
    names = _coordinate_names(adaptation, passive)
    padded = _padded([_problem(cell, names, passive) for cell in good])
    with jax.enable_x64(True):
        values = _fit(names, padded, _draws(names, num_starts, seed), mesh, progress)
        fitted, rates = jax.tree.map(np.asarray, _predict(names, values, padded))
    shared = (padded.weights * (rates - padded.rates) ** 2).sum(axis=1)
    return Population(
        names=tuple(cell.name for cell in good),
        params=fitted[0],
        adaptation=fitted[1],
        rmse=np.sqrt(shared),
        failed=failed,
    )


def held_out_rmse(cells: Sequence[FICell], **options: Any) -> HeldOut:
    r"""Fit every second current of every cell and predict the others, and the reverse, in one compiled call.

    .. math::
        \tfrac12 \sum_{h} \sqrt{\mathrm{mean}_{k \in h} (f_{\bar h}(I_k) - \hat f_k)^2}

    over the two halves h of the sorted distinct currents, :math:`f_{\bar h}` fitted to the other half.

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
        >>> bool(held_out_rmse([cell], passive=None).rmse[0] < 1e-3)
        True
    """
    _check_options(cells, options.get("passive"), options.get("num_starts", 8))
    good, failed = _usable(cells, options.get("passive", "joint"))
    halves = {(c.name, h): replace(_half(c, h), name=f"{c.name}, half {h}") for c in good for h in (0, 1)}
    population = fit_fi_population(list(halves.values()), **options)
    for (name, _), half in halves.items():
        if half.name in population.failed:
            failed.setdefault(name, population.failed[half.name])
    scored = [_sorted(c) for c in good if c.name not in failed]
    predicted = _cross_predictions(scored, population)
    return HeldOut(
        names=tuple(cell.name for cell in scored),
        currents=tuple(cell.currents for cell in scored),
        rates=tuple(cell.rates for cell in scored),
        predicted=predicted,
        rmse=np.array([_mean_half_error(c, f) for c, f in zip(scored, predicted, strict=True)]),
        failed=failed,
    )


def read_fi_population(path: Path | str) -> list[FICell]:
    """Read cells from a table of current steps in JSON.

    The file holds ``{"cells": [{"cell", "sweeps": [{"current", "spikes", "v_rest", "v_steady"}]}]}`` in pA, Hz and mV.
    Positive currents make the f-I curve, with the mean over repeats. Negative ones without a spike make the passive
    table, each voltage corrected by the distance of its own sweep's v_rest from the cell's median.

    Args:
        path: of the file.

    Returns:
        The cells, named by their "cell".

    Raises:
        ValueError: for a file of another layout.

    Example:
        >>> import tempfile
        >>> sweeps = [{"current": c, "spikes": n, "v_rest": -70.0, "v_steady": v}
        ...           for c, n, v in ((-50.0, 0, -80.0), (50.0, 0, -60.0), (100.0, 3, None), (100.0, 5, None))]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "cells.json"
        ...     _ = path.write_text(json.dumps({"cells": [{"cell": 7, "sweeps": sweeps}]}))
        ...     [cell] = read_fi_population(path)
        >>> cell.name, cell.currents.tolist(), cell.rates.tolist(), cell.passive_voltages.tolist()
        ('7', [50.0, 100.0], [0.0, 4.0], [-80.0])
    """
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f'{path}: no JSON object with "cells": [...]') from error
    return [_read_cell(path, index, entry) for index, entry in enumerate(entries)]


def _read_cell(path, index, entry):
    try:
        fields = ("current", "spikes", "v_rest", "v_steady")
        columns = {f: np.array([sweep[f] for sweep in entry["sweeps"]], float) for f in fields}
        name = str(entry["cell"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'{path}: cells[{index}] needs "cell" and "sweeps", each sweep with {", ".join(fields)}: {error}'
        ) from error
    current, spikes, rest, steady = columns.values()
    levels = np.unique(current[current > 0])
    v_rest = float(np.median(rest)) if len(rest) else np.nan
    silent = (current < 0) & (spikes == 0) & np.isfinite(steady)
    return FICell(
        name=name,
        currents=levels,
        rates=np.array([spikes[current == level].mean() for level in levels]),
        passive_currents=current[silent],
        passive_voltages=(steady - rest)[silent] + v_rest,
        v_rest=v_rest,
    )


def _check_options(cells, passive, num_starts):
    if passive not in PASSIVE:
        raise ValueError(f'passive = {passive!r}: passive must be "joint", "fixed" or None')
    if num_starts < 1:
        raise ValueError(f"num_starts = {num_starts}: at least 1 start is needed")
    names = [cell.name for cell in cells]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"cell {twice[0]}: the name occurs {names.count(twice[0])} times: names must differ")


def _usable(cells, passive):
    """Return the cells that can be fitted, and by name why the others cannot."""
    reasons = {cell.name: _fault(cell, passive) for cell in cells}
    good = [cell for cell in cells if reasons[cell.name] is None]
    if not good:
        raise ValueError(next(iter(reasons.values()), "cells are empty: at least one is needed"))
    return good, {name: f"cell {name}: {reason}" for name, reason in reasons.items() if reason}


def _fault(cell: FICell, passive: str | None) -> str | None:
    currents, rates = np.asarray(cell.currents, float), np.asarray(cell.rates, float)
    if currents.ndim != 1 or currents.shape != rates.shape:
        return f"currents have shape {currents.shape} and rates {rates.shape}: both must be [K]"
    for field, values, unit in (("currents", currents, "pA"), ("rates", rates, "Hz")):
        if not np.isfinite(values).all():
            return f"{field}[{int((~np.isfinite(values)).argmax())}] is not a finite number of {unit}"
    if len(np.unique(currents)) < 3:
        return f"currents have {len(np.unique(currents))} levels: at least 3 are needed"
    if (rates < 0).any():
        return f"rates[{int((rates < 0).argmax())}] = {rates.min():g} Hz: a rate must be 0 Hz or more"
    if not (rates > 0).any():
        return "rates are 0 Hz at every current: at least one must be above 0 Hz"
    if passive is None:
        return None if np.isfinite(cell.v_rest) else f"v_rest = {cell.v_rest} mV: v_rest must be finite"
    return _passive_fault(cell)


def _passive_fault(cell: FICell) -> str | None:
    if cell.passive_currents is None or cell.passive_voltages is None:
        return "r_m is not determined: there are no passive_currents and passive_voltages; or pass passive=None"
    currents, voltages = (np.asarray(x, float) for x in (cell.passive_currents, cell.passive_voltages))
    if currents.ndim != 1 or currents.shape != voltages.shape:
        return f"passive_currents have shape {currents.shape} and passive_voltages {voltages.shape}: both must be [P]"
    if not (np.isfinite(currents).all() and np.isfinite(voltages).all()):
        return "passive_currents (pA) and passive_voltages (mV) must be finite"
    if len(np.unique(currents)) < 2:
        return f"r_m is not determined: passive_currents have {len(np.unique(currents))} levels, at least 2 are needed"
    r_m = _line(currents, voltages)[0]
    return None if r_m > 0 else f"r_m = {r_m:.3g} GΩ by the passive steps: r_m must be positive"


def _line(currents, voltages):
    """Return slope (GΩ), intercept (mV) and residual standard deviation (mV) of a line by least squares."""
    r_m = np.cov(currents, voltages)[0, 1] / np.var(currents, ddof=1)
    v_rest = voltages.mean() - r_m * currents.mean()
    residual = np.sum((voltages - v_rest - r_m * currents) ** 2) / max(1, len(currents) - 2)
    return float(r_m), float(v_rest), float(np.sqrt(residual))


class _Problem(NamedTuple):
    """One cell to fit, or, with an axis in front, all of them; weights sum to 1 and are 0 where padded."""

    currents: np.ndarray  # [K], pA
    rates: np.ndarray  # [K], Hz
    weights: np.ndarray  # [K]
    steps: np.ndarray  # [P], pA, empty unless r_m is fitted
    voltages: np.ndarray  # [P], mV
    step_weights: np.ndarray  # [P], 1/mV^2
    r_m: np.ndarray  # GΩ, from the passive steps, or the convention
    v_rest: np.ndarray  # mV
    low: np.ndarray  # [n], of every coordinate
    high: np.ndarray  # [n]
    guess: np.ndarray  # [n]


def _coordinate_names(adaptation, passive):
    names = ("tau_m", "rheobase", "reach", "t_ref")  # reach: (v_th - v_reset) / r_m, pA
    return names + ("adaptation",) * adaptation + ("r_m", "v_rest") * (passive == "joint")


def _problem(cell: FICell, names: tuple[str, ...], passive: str | None) -> _Problem:
    currents, rates = np.asarray(cell.currents, float), np.asarray(cell.rates, float)
    steps = voltages = np.zeros(0)
    r_m, v_rest, noise = R_WITHOUT_PASSIVE, float(cell.v_rest), 0.0
    if passive is not None:
        steps, voltages = np.asarray(cell.passive_currents, float), np.asarray(cell.passive_voltages, float)
        r_m, v_rest, noise = _line(steps, voltages)
    if passive != "joint":
        steps = voltages = np.zeros(0)
    ranges = _ranges(currents, rates, r_m, v_rest)
    low, high, guess = np.array([ranges[name] for name in names]).T
    weights, step_weights = (np.full(len(x), 1.0 / max(1, len(x))) for x in (currents, steps))
    step_weights /= max(noise, VOLTAGE_NOISE) ** 2
    given = np.array(r_m), np.array(v_rest)
    return _Problem(currents, rates, weights, steps, voltages, step_weights, *given, low, high, guess)


def _ranges(currents, rates, r_m, v_rest):
    """Return (low, high, first guess) of every coordinate, as for a single f-I curve."""
    t_ref = min(50.0, 1000.0 / rates.max())
    adaptation = 2.0 * np.ptp(currents) / rates.max()
    return {
        "tau_m": (0.5, 500.0, 20.0),
        "rheobase": (currents.min() - np.ptp(currents), currents.max(), _onset(currents, rates)),
        "reach": (0.0, 300.0 / r_m, 10.0 / r_m),
        "t_ref": (0.0, t_ref, 0.3 * t_ref),
        "adaptation": (0.0, adaptation, 0.1 * adaptation),
        "r_m": (0.2 * r_m, 1.8 * r_m, r_m),
        "v_rest": (v_rest - 30.0, v_rest + 30.0, v_rest),
    }


def _onset(currents, rates):
    """Return a current between the lowest one that fires and the silent one below it, nearer to the first."""
    firing = currents[rates > 0].min()
    silent = currents[currents < firing]
    below = silent.max() if silent.size else firing - 0.5 * np.ptp(currents) / len(currents)
    return 0.7 * firing + 0.3 * below


def _padded(problems: list[_Problem]) -> _Problem:
    """Stack problems; zeros fill up the shorter ones, and their weights are zeros too."""

    def stack(*arrays):
        length = max(a.size for a in arrays)
        return np.stack([np.pad(a, (0, length - a.size)) if a.ndim else a for a in arrays])

    return jax.tree.map(stack, *problems)


def _draws(names, num_starts, seed):
    """Return what is added to the first guess in free coordinates [starts, n]; nothing in the first start."""
    draws = [np.random.default_rng((seed, i)).normal(0.0, SPREAD[name], num_starts) for i, name in enumerate(names)]
    return np.stack(draws, axis=1) * (np.arange(num_starts) > 0)[:, None]


def _fit(names, problem: _Problem, draws: np.ndarray, mesh: Mesh | None, progress: bool) -> np.ndarray:
    """Return the best coordinates [cells, n]."""
    count = len(problem.r_m)
    problem = _filled(problem, -count % (mesh.devices.shape[0] if mesh else 1))
    share = (problem.guess - problem.low) / (problem.high - problem.low)
    z = np.log(share / (1.0 - share))[:, None] + draws
    damping = np.full(z.shape[:2], 1e-3)
    for _ in tqdm(range(CHUNKS), disable=not progress, unit="chunk"):
        z, damping, losses = _advance(names, mesh, problem, z, damping)
        jax.block_until_ready(losses)
    best = np.where(np.isfinite(losses), losses, np.inf).argmin(axis=1)
    chosen = np.take_along_axis(np.asarray(z), best[:, None, None], axis=1)[:, 0]
    return np.asarray(_values(chosen, problem.low, problem.high))[:count]


def _filled(problem: _Problem, missing: int) -> _Problem:
    """Repeat the first cell, so that the cells divide evenly over the devices."""
    return jax.tree.map(lambda x: np.concatenate([x, np.repeat(x[:1], missing, axis=0)]), problem)


@partial(jax.jit, static_argnums=(0, 1))
def _advance(names, mesh, problem, z, damping):
    """Move all cells and starts by a chunk of updates; return them with their losses."""
    starts = jax.vmap(partial(_descend, names), in_axes=(None, 0, 0))
    every = jax.vmap(starts)
    if mesh is None:
        return every(problem, z, damping)
    split = PartitionSpec(mesh.axis_names[0])
    return jax.shard_map(every, mesh=mesh, in_specs=split, out_specs=split)(problem, z, damping)


def _descend(names, problem, z, damping):
    residuals = partial(_residuals, names, problem)
    step = partial(_marquardt, residuals)
    z, damping = jax.lax.fori_loop(0, CHUNK_STEPS, lambda _, carry: step(*carry), (z, damping))
    return z, damping, jnp.sum(residuals(z) ** 2)


def _marquardt(residuals, z, damping):
    """Take one damped Gauss-Newton step where it does not raise the sum of squares."""
    r, jacobian = residuals(z), jax.jacfwd(residuals)(z)
    normal, gradient = jacobian.T @ jacobian, jacobian.T @ r
    scale = jnp.diagonal(normal)
    # A coordinate without any effect, such as the rheobase of a silent neuron, keeps the equations solvable.
    scale = scale + 1e-9 * scale.max() + 1e-30
    step = jnp.clip(jnp.linalg.solve(normal + jnp.diag(damping * scale), -gradient), -2.0, 2.0)
    moved = jnp.clip(z + step, -30.0, 30.0)
    # Rounding may raise the sum near the minimum, where the step still leads to a smaller gradient.
    better = jnp.sum(residuals(moved) ** 2) <= (1.0 + 1e-12) * jnp.sum(r**2)
    damping = jnp.where(better, jnp.maximum(0.3 * damping, 1e-10), jnp.minimum(5.0 * damping, 1e10))
    return jnp.where(better, moved, z), damping


def _residuals(names, problem, z):
    neuron, adaptation = _neuron(names, _values(z, problem.low, problem.high), problem)
    errors = _rates(neuron, adaptation, problem.currents) - problem.rates
    passive = neuron.v_rest + neuron.r_m * problem.steps - problem.voltages
    return jnp.concatenate([jnp.sqrt(problem.weights) * errors, jnp.sqrt(problem.step_weights) * passive])


def _values(z, low, high):
    return low + (high - low) * jax.nn.sigmoid(jnp.asarray(z))


def _neuron(names, values, problem) -> tuple[LIFParams, Parameter | None]:
    x = dict(zip(names, values, strict=True))
    r_m, v_rest = x.get("r_m", problem.r_m), x.get("v_rest", problem.v_rest)
    v_th = v_rest + r_m * x["rheobase"]
    v_reset = v_th - r_m * x["reach"]
    params = LIFParams(tau_m=x["tau_m"], r_m=r_m, v_rest=v_rest, v_th=v_th, v_reset=v_reset, t_ref=x["t_ref"])
    return params, x.get("adaptation")


def _rates(params: LIFParams, adaptation: Parameter | None, currents: Array) -> Array:
    return firing_rate(params, currents) if adaptation is None else adapted_rate(params, adaptation, currents)


_all_rates = jax.jit(jax.vmap(_rates))


@partial(jax.jit, static_argnums=0)
def _predict(names, values, problem):
    """Return the neurons, their adaptation and their rates at the problems' currents."""

    def one(x, problem):
        neuron = _neuron(names, x, problem)
        return neuron, _rates(*neuron, problem.currents)

    return jax.vmap(one)(values, problem)


def _half(cell: FICell, half: int) -> FICell:
    """Return every second distinct current of a cell; a current's repeats stay together."""
    kept = np.unique(cell.currents, return_inverse=True)[1] % 2 == half
    return replace(cell, currents=np.asarray(cell.currents, float)[kept], rates=np.asarray(cell.rates, float)[kept])


def _sorted(cell: FICell) -> FICell:
    order = np.argsort(cell.currents, kind="stable")
    return replace(cell, currents=np.asarray(cell.currents, float)[order], rates=np.asarray(cell.rates, float)[order])


def _cross_predictions(cells, population):
    """Return for each cell its rates, each by the half that its current is not in."""
    length = max((len(cell.currents) for cell in cells), default=0)
    currents = np.stack([np.pad(cell.currents, (0, length - len(cell.currents))) for cell in cells])
    halves = []
    for half in (0, 1):
        rows = np.array([population.names.index(f"{cell.name}, half {half}") for cell in cells])
        chosen = jax.tree.map(lambda x, rows=rows: x[rows], (population.params, population.adaptation))
        with jax.enable_x64(True):
            halves.append(np.asarray(_all_rates(*chosen, currents)))
    members = [np.unique(cell.currents, return_inverse=True)[1] % 2 for cell in cells]
    return tuple(np.where(m == 0, odd[: len(m)], even[: len(m)]) for m, even, odd in zip(members, *halves, strict=True))


def _mean_half_error(cell, predicted):
    member = np.unique(cell.currents, return_inverse=True)[1] % 2
    squares = (predicted - cell.rates) ** 2
    return np.mean([np.sqrt(squares[member == half].mean()) for half in (0, 1)])
