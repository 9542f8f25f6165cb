"""Can this gradient be trusted? One loss, three gradients of it, and a verdict.

A spiking loss jumps where spikes appear and vanish. Its surrogate gradient is a convention, its exact gradient ignores
the jumps; what an optimiser needs is the slope of the loss seen from a little distance. The audit compares all three.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.checks import check_params, input_arrays, number, random_key, require_positive, scalar, whole
from jaxlif.fitting.bounds import named_leaves
from jaxlif.networks.graph import Sequential
from jaxlif.neurons.cell import Cell
from jaxlif.neurons.lif import LIF
from jaxlif.neurons.precise import PreciseLIF
from jaxlif.simulation import simulate
from jaxlif.smoothing import Agreement, agreement, gather

_BUDGET = 4096  # pairs: the slope along a gradient to 3 %, the loss's jumps apart


@dataclass(frozen=True)
class Comparison:
    """How a gradient compares with a reference.

    Args:
        cosine: of the angle between them, nan where one is 0.
        norm_ratio: its norm over the reference's.
    """

    cosine: float
    norm_ratio: float


@dataclass(frozen=True)
class GradientAudit:
    """The result of :func:`audit_gradient`; gradients are of the loss, per unit of ``scale``.

    Args:
        names: audited parameters by dotted name; an array of parameters has one name.
        scale: what one unit of each parameter is, by name.
        cell: gradient by autodiff of the cell itself, by name.
        precise: gradient by autodiff of its precise counterpart, by name; None without one.
        smoothed: slope of the loss smoothed over parameter noise, by name.
        error: standard error of ``smoothed``, by name.
        comparisons: of "cell" and "precise" with "smoothed": over all parameters ("all"), by name, by layer of a
            :class:`~jaxlif.networks.Sequential` ("layer 0", ...), and with bins over the windows ("over time"). The
            error of "smoothed" lowers these cosines, the more the parameters; it does not lower that of the verdict.
        over_time: by "cell" and "precise" the gradient with respect to the input, summed over neurons, [T].
        verdict: one line in plain words, on "cell".
        agreement: what the verdict is made of, as numbers.
        edges: of the windows, in steps, [bins + 1]; empty without bins.
        windows: by "cell", "precise" and "smoothed" the slope of the loss per unit of a shift of the input in each
            window, and by "error" the standard error of "smoothed", [bins]; empty without bins.
    """

    names: tuple[str, ...]
    scale: dict[str, np.ndarray]
    cell: dict[str, np.ndarray]
    precise: dict[str, np.ndarray] | None
    smoothed: dict[str, np.ndarray]
    error: dict[str, np.ndarray]
    comparisons: dict[str, dict[str, Comparison]]
    over_time: dict[str, np.ndarray]
    verdict: str
    agreement: Agreement
    edges: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    windows: dict[str, np.ndarray] = field(default_factory=dict)


def audit_gradient(
    loss: Callable[[Any], Array],
    cell: Cell,
    params: Any,
    inputs: Any,
    *,
    key: Array,
    precise: Cell | None = None,
    names: tuple[str, ...] | None = None,
    noise: float = 0.02,
    samples: int = 512,
    budget: int | None = None,
    bins: int = 0,
) -> GradientAudit:
    r"""Compare the gradient of a loss on a cell's output with the slope of the smoothed loss.

    The smoothed loss is :math:`\bar L(p) = E_\epsilon L(p + \sigma s \epsilon)`, with s the scale of each parameter.
    Its slope is estimated without any derivative, from antithetic pairs that share their noise,
    :math:`\partial_p \bar L = E[\epsilon\, (L(p + \sigma s\epsilon) - L(p - \sigma s\epsilon))] / (2\sigma s)`.

    The verdict rests on the slope along the gradient, whose error does not grow with the number of parameters, and on
    the length of the slope, see :func:`~jaxlif.smoothing.agreement`. While they leave the direction open, or the cosine
    to more than 0.2, as many pairs again are drawn, up to the budget.

    With ``bins`` the same is done, apart from the parameters, to the input: it is shifted by a number that is constant
    within each of W windows of time, :math:`x_n + \sigma s_x \epsilon_{w(n)}`, with :math:`s_x` the root mean square of
    the input, and :math:`\partial_w \bar L = E[\epsilon_w\, (L(x + \sigma s_x \epsilon) - L(x - \sigma s_x \epsilon))]
    / (2\sigma s_x)` is compared with the gradients summed over the window,
    :math:`\sum_{n \in w} \partial L/\partial x_n`.

    Args:
        loss: ``loss(output)``, a scalar, of the outputs [T, ...].
        cell: the cell, with its surrogate.
        params: its parameters.
        inputs: its inputs, [T, ...].
        key: of the noise; it is consumed.
        precise: a cell with the same parameters and exact gradients; for :class:`LIF` with t_ref >= dt it is made.
        names: the parameters to audit, by dotted name; all floating ones by default.
        noise: :math:`\sigma`, the size of the noise in units of the scale.
        samples: antithetic pairs, to begin with; with ``bins`` also those of the input.
        budget: pairs at most; 4096 by default, or ``samples`` if those are more.
        bins: W, windows of as equal a length as T allows; 0 for no smoothing over the input.

    Returns:
        The :class:`GradientAudit`.

    Raises:
        ValueError: for a loss that is no scalar, an unknown name, noise or samples not positive, a budget below
            samples, parameters that break their rules, or bins that are negative, more than T, or asked for inputs that
            are several arrays.

    Example:
        >>> import jaxlif as jl
        >>> params = jl.LIFParams(t_ref=2.0)
        >>> audit = audit_gradient(
        ...     lambda out: jnp.mean(out.v), jl.LIF(dt=0.5), params, jnp.full(400, 60.0), key=jax.random.key(0)
        ... )
        >>> audit.comparisons["cell"]["all"].cosine > 0.99  # below rheobase the membrane is passive, and all agree
        True

    Source: Nesterov & Spokoiny 2017, doi:10.1007/s10208-015-9296-2 (Gaussian smoothing); Gygax & Zenke 2025,
    doi:10.1162/neco_a_01752 (what surrogate gradients estimate).
    """
    require_positive("noise", number("noise", noise), "")
    samples = whole("samples", samples, 2)
    budget = max(samples, _BUDGET) if budget is None else whole("budget", budget)
    if budget < samples:
        raise ValueError(f"budget = {budget}: budget must be samples = {samples} or more")
    check_params(params)
    key, inputs, bins = random_key(key), input_arrays(inputs), whole("bins", bins)
    edges, params = _edges(inputs, bins), _as_arrays(params)
    problem = _Problem(loss, cell, params, inputs, noise, samples)
    scalar("the loss", jax.eval_shape(partial(problem.value, cell), params, inputs), np.floating)
    chosen = _chosen(params, names)
    scale = {name: _scale(value) for name, value in chosen.items()}
    gradients, over_time = _gradients(problem, precise, chosen, scale)
    loss_at, draw = _shifted(problem, chosen, scale)
    evidence = gather(loss_at, draw, key, noise, samples, gradient=gradients["cell"], budget=budget)
    windows = _windows(problem, over_time, edges, key) if bins else {}
    comparisons = _comparisons(gradients, evidence.mean, windows, layers=isinstance(cell, Sequential))
    return GradientAudit(
        names=tuple(chosen),
        scale={name: np.asarray(s) for name, s in scale.items()},
        cell=gradients["cell"],
        precise=gradients.get("precise"),
        smoothed=evidence.mean,
        error=evidence.error,
        comparisons=comparisons,
        over_time=over_time,
        verdict=_verdict(gradients["cell"], agreement(evidence)),
        agreement=agreement(evidence),
        edges=edges,
        windows=windows,
    )


class _Problem(NamedTuple):
    """What is audited, and how it is smoothed."""

    loss: Callable[[Any], Array]
    cell: Cell
    params: Any
    inputs: Any
    noise: float
    samples: int

    def value(self, cell: Cell, params: Any, inputs: Any) -> Array:
        """Return the loss of a cell's response."""
        return self.loss(simulate(cell, params, inputs)[1])


def _as_arrays(params: Any) -> Any:
    """Return the parameters as arrays, plain numbers in the default precision."""
    return jax.tree.map(lambda x: jnp.asarray(x, x.dtype if hasattr(x, "dtype") else jnp.result_type(float)), params)


def _chosen(params: Any, names: tuple[str, ...] | None) -> dict[str, Array]:
    leaves = {n: x for n, x in named_leaves(params).items() if jnp.issubdtype(x.dtype, jnp.floating)}
    unknown = [name for name in names or () if name not in leaves]
    if unknown:
        raise ValueError(f"names has {unknown[0]!r}, which is no parameter; the parameters are {', '.join(leaves)}")
    return {name: leaves[name] for name in names or leaves}


def _counterpart(cell: Cell, params: Any) -> Cell | None:
    """Return the precise neuron of a grid one, unless two spikes could fall into its step."""
    t_ref = getattr(params, "t_ref", None)
    if isinstance(cell, LIF) and cell.reset == "value" and t_ref is not None and bool((t_ref >= cell.dt).all()):
        return PreciseLIF(dt=cell.dt)
    return None


def _scale(value: Array) -> Array:
    """Return the root mean square of a parameter, and 1 for zeros: one noise then suits times, voltages and weights."""
    size = jnp.sqrt(jnp.mean(value**2))
    return jnp.where(size > 0, size, 1.0)


def _with(params: Any, values: dict[str, Array]) -> Any:
    leaves, structure = jax.tree.flatten(params)
    changed = [values.get(name, leaf) for name, leaf in zip(named_leaves(params), leaves, strict=True)]
    return jax.tree.unflatten(structure, changed)


def _gradients(problem, precise, chosen, scale):
    """Return by "cell" and "precise" the gradient by name, per unit of scale, and that by step, [T]."""
    precise = _counterpart(problem.cell, problem.params) if precise is None else precise
    gradients, over_time = {}, {}
    for label, cell in {"cell": problem.cell, "precise": precise}.items():
        if cell is not None:
            by_name, by_input = _gradient(problem, cell, chosen)
            gradients[label] = {name: np.asarray(by_name[name] * scale[name]) for name in chosen}
            over_time[label] = _per_step(by_input)
    return gradients, over_time


def _gradient(problem, cell, chosen):
    """Return the gradients with respect to the chosen parameters and to the floating inputs."""

    def _total(values, inputs):
        return problem.value(cell, _with(problem.params, values), inputs)

    inputs = jax.tree.map(lambda x: jnp.asarray(x, float), problem.inputs)
    return jax.jit(jax.grad(_total, argnums=(0, 1)))(chosen, inputs)


def _per_step(gradient: Any) -> np.ndarray:
    return sum(np.asarray(g).reshape(g.shape[0], -1).sum(axis=1) for g in jax.tree.leaves(gradient))


def _edges(inputs: Any, bins: int) -> np.ndarray:
    """Return where the windows begin and the last one ends, in steps, [bins + 1]; empty for no bins."""
    arrays = jax.tree.leaves(inputs)
    if not arrays or () in map(jnp.shape, arrays):
        raise ValueError(f"inputs = {type(inputs).__name__}: inputs must be arrays [T, ...]")
    steps = jnp.shape(arrays[0])[0]
    if not 0 <= bins <= steps:
        raise ValueError(f"bins = {bins}: bins must be 0 or more, and no more than the {steps} steps")
    if bins and len(arrays) > 1:
        raise ValueError(f"bins = {bins} with inputs of {len(arrays)} arrays: bins need inputs that are one array")
    return np.arange(bins + 1) * steps // bins if bins else np.zeros(0, int)


def _windows(problem, over_time, edges, key):
    """Return the slopes per window by "cell", "precise" and "smoothed", and the "error" of the last, [bins]."""
    summed = {label: np.add.reduceat(g, edges[:-1]) for label, g in over_time.items()}
    # Another key than the parameters', whose slopes then do not depend on bins.
    mean, error = _smoothed_input(problem, edges, jax.random.fold_in(key, len(edges) - 1))
    return summed | {"smoothed": mean, "error": error}


def _shifted(problem, chosen, scale):
    """Return the loss at a shift of the chosen parameters in units of their scale, and what draws a direction."""

    def _draw(key):
        keys = dict(zip(chosen, jax.random.split(key, len(chosen)), strict=True))
        return {name: jax.random.normal(keys[name], x.shape, x.dtype) for name, x in chosen.items()}

    def _loss_at(shift):
        values = {name: x + scale[name] * shift[name] for name, x in chosen.items()}
        return problem.value(problem.cell, _with(problem.params, values), problem.inputs)

    return _loss_at, _draw


def _smoothed_input(problem, edges, key):
    """Return mean and standard error of the slope of the loss smoothed over the input, by window, [bins]."""
    x = jnp.asarray(jax.tree.leaves(problem.inputs)[0], float)
    scale, lengths = _scale(x), np.diff(edges)
    window = np.repeat(np.arange(len(lengths)), lengths).reshape((-1,) + (1,) * (x.ndim - 1))

    def _loss_at(shift):
        moved = jax.tree.unflatten(jax.tree.structure(problem.inputs), [x + scale * shift[window]])
        return problem.value(problem.cell, problem.params, moved)

    def _draw(key):
        return jax.random.normal(key, lengths.shape, x.dtype)

    evidence = gather(_loss_at, _draw, key, problem.noise, problem.samples)
    return evidence.mean / np.asarray(scale), evidence.error / np.asarray(scale)


def _comparisons(gradients, smoothed, windows, *, layers):
    """Compare each gradient with the smoothed slope: in parameters, and over time where there are windows."""
    over_time = {
        label: {"over time": _comparison(windows[label], windows["smoothed"])} for label in gradients if windows
    }
    return {label: _compare(g, smoothed, layers) | over_time.get(label, {}) for label, g in gradients.items()}


def _compare(gradient: dict[str, np.ndarray], reference: dict[str, np.ndarray], layers: bool) -> dict[str, Comparison]:
    groups = {name: [name] for name in gradient} | {"all": list(gradient)}
    for name in gradient if layers else ():
        groups.setdefault(f"layer {name.split('.')[0]}", []).append(name)
    return {
        group: _comparison(
            *(np.concatenate([np.ravel(part[name]) for name in names]) for part in (gradient, reference))
        )
        for group, names in groups.items()
    }


def _comparison(a: np.ndarray, b: np.ndarray) -> Comparison:
    size_a, size_b = np.linalg.norm(a), np.linalg.norm(b)
    cosine = float(a @ b / (size_a * size_b)) if size_a > 0 and size_b > 0 else float("nan")
    return Comparison(cosine, float(size_a / size_b) if size_b > 0 else float("inf"))


def _verdict(gradient: dict[str, np.ndarray], found: Agreement) -> str:
    bad = [name for name, g in gradient.items() if not np.isfinite(g).all()]
    if bad:
        return f"the gradient is not finite in {', '.join(bad)}"
    length = float(np.sqrt(sum(np.sum(g**2) for g in gradient.values())))
    if length == 0 and found.sloping:
        return "the gradient is zero where the smoothed loss has a slope"
    if not (found.downhill or found.poor):
        seen = f"along the gradient the smoothed slope is {found.slope:.3g} with an error of {found.error:.3g}"
        return f"undecided: {seen} after {found.pairs} pairs; take more samples or more noise"
    ratio = length / found.norm
    size = "" if 0.1 <= ratio <= 10.0 else f", but {ratio:.2g} times as long"
    grades = {0.9: "trustworthy", 0.5: "roughly downhill", -1.0: "poor"}
    words = next(words for limit, words in grades.items() if found.cosine >= limit)
    words = "uphill: it lies" if found.downhill < 0 else words
    return f"{words}: cosine {found.cosine:.2f} ± {found.doubt:.2f} with the smoothed slope{size}"
