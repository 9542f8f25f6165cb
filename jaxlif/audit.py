"""Can this gradient be trusted? One loss, its gradients by several rules, and a verdict.

A spiking loss jumps where spikes appear and vanish. Its surrogate gradient is a convention, its exact gradient ignores
the jumps; what an optimiser needs is the slope of the loss seen from a little distance. The audit compares.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from jaxlif.checks import input_arrays, positive, random_key, scalar, whole
from jaxlif.fitting.bounds import REAL, coordinates, named_leaves
from jaxlif.neurons.cell import Cell, innermost
from jaxlif.neurons.lif import LIF
from jaxlif.neurons.precise import PreciseLIF
from jaxlif.simulation import simulate
from jaxlif.synapses.base import Synaptic, VoltageJump
from jaxlif.synapses.currents import Current
from jaxlif.synapses.precise import PreciseSynaptic, TimedDrive

ONE_IN = 1.35e-3  # the tail of a normal distribution beyond three standard errors
AT_ONCE = 64  # pairs that are computed side by side
GRADES = {0.9: "trustworthy", 0.5: "roughly downhill", -1.0: "poor"}  # by the least cosine


class Agreement(NamedTuple):
    """How a gradient agrees with the slope of the smoothed loss: numbers without the noise of many directions."""

    slope: float  # of the smoothed loss along the gradient
    error: float  # its standard error
    norm: float  # length of the smoothed slope over all directions
    cosine: float  # of the angle between both, nan for a gradient of 0
    doubt: float  # its standard error
    downhill: int  # 1 where the loss falls against the gradient, -1 where it grows, 0 where neither is beyond chance
    sloping: bool  # whether there is a slope beyond chance, along the gradient or across
    pairs: int  # M
    length: float  # of the gradient


@dataclass(frozen=True)
class GradientAudit:
    """The result of :func:`audit_gradient`, by dotted name; gradients are of the loss, per unit of ``scale``. The error
    of ``smoothed`` lowers the cosines, the more the parameters; not that of the verdict.
    """

    names: tuple[str, ...]  # an array of parameters has one
    scale: dict[str, np.ndarray]  # what one unit of each parameter is
    cell: dict[str, np.ndarray]  # by autodiff of the cell itself
    precise: dict[str, np.ndarray] | None  # by autodiff of its precise counterpart, where it has one
    others: dict[str, dict[str, np.ndarray]]  # by the other rules that were given, by their names
    smoothed: dict[str, np.ndarray]  # slope of the loss smoothed over parameter noise
    error: dict[str, np.ndarray]  # its standard error
    cosines: dict[str, float]  # of "cell", "precise" and the others with "smoothed", nan where one is 0
    verdict: str  # one line in plain words, on "cell"
    agreement: Agreement  # what it is made of


def audit_gradient(
    loss: Callable[[Any], Array],
    cell: Cell,
    params: PyTree,
    inputs: PyTree,
    *,
    key: PRNGKeyArray,
    names: tuple[str, ...] | None = None,
    noise: float = 0.02,
    samples: int = 1024,
    state: PyTree = None,
    others: Mapping[str, Callable[[Any], Array]] | None = None,
) -> GradientAudit:
    r"""Compare the gradient of a loss on a cell's output with the slope of the smoothed loss.

    The smoothed loss is :math:`\bar L(p) = E_\epsilon L(p + \sigma s \epsilon)`, with s the scale of each parameter.
    Its slope is estimated without any derivative, from antithetic pairs that share their noise,
    :math:`\partial_p \bar L = E[\epsilon\, (L(p + \sigma s\epsilon) - L(p - \sigma s\epsilon))] / (2\sigma s)`.
    The verdict rests on the slope along the gradient, whose error does not grow with the number of parameters, and on
    the length of the slope, see :func:`agreement`.

    Args:
        loss: ``loss(output)``, a scalar, of the outputs [T, ...].
        cell, params, inputs: as for :func:`jaxlif.simulate`.
        key: of the noise.
        names: the parameters to audit, by dotted name or pattern; all floating ones by default.
        noise: :math:`\sigma`, the size of the noise in units of the scale.
        samples: antithetic pairs.
        state: where to start, as for :func:`jaxlif.simulate`; for a network of populations that of ``build``.
        others: functions of the parameters by name, each the same loss with a gradient of another rule, such as
            :func:`jaxlif.networks.eprop_loss` or the loss of the cell with another surrogate.

    Returns:
        The :class:`GradientAudit`, for :class:`LIF` with t_ref >= dt that starts fresh, also with jumps or currents,
        with the exact gradient too. What a cell draws from a key in its parameters is the same on both sides of a pair.

    Example:
        >>> import jaxlif as jl
        >>> params = jl.LIFParams(t_ref=2.0)
        >>> audit = audit_gradient(
        ...     lambda out: jnp.mean(out.v), jl.LIF(dt=0.5), params, jnp.full(400, 60.0), key=jax.random.key(0)
        ... )
        >>> audit.cosines["cell"] > 0.99  # below rheobase the membrane is passive, and all agree
        True

    Source: Nesterov & Spokoiny 2017, doi:10.1007/s10208-015-9296-2 (Gaussian smoothing); Gygax & Zenke 2025,
    doi:10.1162/neco_a_01752 (what surrogate gradients estimate).
    """
    noise, samples = positive("noise", noise), whole("samples", samples, 2)
    key, inputs = random_key(key), input_arrays(inputs)
    audited = coordinates(params, dict.fromkeys(_floating(params) if names is None else names, REAL))
    chosen = audited.to_free(params)
    scale = {name: _scale(x) for name, x in chosen.items()}
    with jax.numpy_dtype_promotion("standard"):  # one vector of what may have several precisions
        flat, by_name = ravel_pytree(chosen)
        unit, _ = ravel_pytree({name: jnp.broadcast_to(scale[name], x.shape) for name, x in chosen.items()})

    def _moved(shift: Array) -> Any:
        return audited.to_params(by_name(flat + unit * shift), params)

    def _loss_at(cell: Cell, inputs: PyTree, shift: Array) -> Array:
        return loss(simulate(cell, _moved(shift), inputs, state)[1])

    still, own = jnp.zeros_like(flat), partial(_loss_at, cell, inputs)
    scalar("the loss", jax.eval_shape(own, still), np.floating)
    twin = None if state is not None else _counterpart(cell, params, inputs)
    rules = {"cell": own} | ({} if twin is None else {"precise": partial(_loss_at, *twin)})
    further = {label: lambda shift, other=other: other(_moved(shift)) for label, other in (others or {}).items()}
    gradients = _gradients(rules, further, still)
    directions, slopes = smoothed_slopes(own, still, key, noise, samples)
    found = agreement(gradients["cell"], directions, slopes)
    mean, error = _mean_slope(directions, slopes)
    named = {label: jax.device_get(by_name(jnp.asarray(x, flat.dtype))) for label, x in gradients.items()}
    smoothed, errors = (jax.device_get(by_name(jnp.asarray(x, flat.dtype))) for x in (mean, error))
    return GradientAudit(
        names=tuple(chosen),
        scale=jax.device_get(scale),
        cell=named["cell"],
        precise=named.get("precise"),
        others={label: named[label] for label in further},
        smoothed=smoothed,
        error=errors,
        cosines={label: _cosine(x, mean) for label, x in gradients.items()},
        verdict=_verdict(named["cell"], found),
        agreement=found,
    )


def _gradients(rules: dict[str, Any], further: dict[str, Any], origin: Array) -> dict[str, np.ndarray]:
    """Return the gradient by each rule; what others return must be the loss of the cell itself, first of the rules."""
    if taken := [label for label in further if label in ("cell", "precise")]:
        raise ValueError(f"others name {taken[0]!r}: the audit calls a gradient of its own so")
    found = {label: jax.jit(jax.value_and_grad(at))(origin) for label, at in (rules | further).items()}
    value = float(found["cell"][0])
    for label in further:
        # In another program, so to rounding; but a spike in single precision may move.
        if not np.isclose(found[label][0], value, rtol=1e-3, atol=0.0, equal_nan=True):
            theirs = f"others[{label!r}] is {found[label][0]:g}"
            raise ValueError(f"{theirs} and the loss {value:g}: both must be one loss, with gradients of their own")
    return {label: np.asarray(gradient, float) for label, (_, gradient) in found.items()}


def smoothed_slopes(
    loss_at: Callable[[Array], Array], origin: Float[Array, " d"], key: PRNGKeyArray, noise: float, samples: int
) -> tuple[Float[np.ndarray, "samples d"], Float[np.ndarray, " samples"]]:
    r"""Return normal directions :math:`\epsilon` and a loss's slopes :math:`a = (L(\sigma\epsilon) -
    L(-\sigma\epsilon)) / 2\sigma`; :math:`E[a\,\epsilon]` is the smoothed gradient.
    """

    def _one(key: PRNGKeyArray) -> tuple[Array, Array]:
        direction = jax.random.normal(key, origin.shape, origin.dtype)
        up, down = (loss_at(origin + size * direction) for size in (noise, -noise))
        return direction, (up - down) / (2.0 * noise)

    run = jax.jit(partial(jax.lax.map, _one, batch_size=AT_ONCE))
    directions, slopes = run(jax.random.split(key, samples))
    return np.asarray(directions, float), np.asarray(slopes, float)


def agreement(
    gradient: Float[np.ndarray, " d"], directions: Float[np.ndarray, "M d"], slopes: Float[np.ndarray, " M"]
) -> Agreement:
    r"""Judge a gradient by the slopes a of a loss along directions :math:`\epsilon`, z of it along the gradient.

    Regression gives the slope along it, :math:`s = \sum a z / \sum z^2`, whose error does not grow with the number of
    parameters. What is left, :math:`r = a - s z`, has across it the squared slope :math:`p^2 = \sum_{i \ne j} r_i r_j\,
    \epsilon_i \cdot \epsilon_j / M(M-1)`, unbiased without its diagonal (Hoeffding 1948, doi:10.1214/aoms/1177730196),
    with an error that grows with the square root of that number. The cosine is :math:`s / \sqrt{s^2 + p^2}`.
    """
    from scipy.special import stdtrit

    m, length = len(slopes), np.linalg.norm(gradient)
    directed = bool(np.isfinite(length) and length > 0.0)
    z = directions @ (gradient / length) if directed else np.zeros(m)
    power = float(z @ z)
    slope = float(slopes @ z) / power if directed else 0.0
    rest = slopes - slope * z
    # The larger of what equal and what unequal scatter along z give: few pairs show too little of the latter.
    scatter = max(float(rest @ rest) * power, m * float(rest**2 @ z**2)) / (m - 1)
    error = float(np.sqrt(scatter)) / power if directed else 0.0
    across, doubt, null = _across(directions, z, rest)
    norm = float(np.hypot(slope, np.sqrt(max(across, 0.0))))
    beyond = stdtrit(m - 1, 1.0 - ONE_IN)
    sure = abs(slope) > beyond * error
    turn = np.hypot(max(across, 0.0) * error, 0.5 * slope * doubt)
    return Agreement(
        slope,
        error,
        norm,
        cosine=float("nan") if not directed else slope / norm if norm else 0.0,
        doubt=float(turn / norm**3) if norm else float("inf"),
        downhill=int(np.sign(slope)) if sure else 0,
        sloping=bool(sure or across > beyond * null),
        pairs=m,
        length=float(length),
    )


def _mean_slope(directions: np.ndarray, slopes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the slope of the smoothed loss [d], and its standard error."""
    m = len(slopes)
    mean = slopes @ directions / m
    return mean, np.sqrt(np.maximum(slopes**2 @ directions**2 / m - mean**2, 0.0) / (m - 1))


def _across(directions: np.ndarray, z: np.ndarray, rest: np.ndarray) -> tuple[float, float, float]:
    """Return the squared slope across the gradient, its standard error, and that of no slope at all."""
    m, dimension = len(rest), directions.shape[1] - bool(z.any())
    own = rest**2 @ (np.sum(directions**2, axis=1) - z**2)  # the diagonal; along the gradient nothing is left
    square = float(np.sum((rest @ directions) ** 2) - own) / (m * (m - 1))
    power = float(np.mean(rest**2))
    null = np.sqrt(2.0 * dimension) * power / m
    beyond = 4.0 * max(square, 0.0) * (power + max(square, 0.0)) / m
    return square, float(np.sqrt(null**2 + beyond)), float(null)


def _floating(params: PyTree) -> list[str]:
    leaves = named_leaves(params).items()
    return [name for name, x in leaves if jnp.issubdtype(getattr(x, "dtype", float), jnp.floating)]


def _counterpart(cell: Cell, params: PyTree, inputs: PyTree) -> tuple[Cell, PyTree] | None:
    """Return the precise neuron of a grid one, and its input, unless two spikes could fall into its step."""
    plain, t_ref = innermost(cell), getattr(innermost(params), "t_ref", None)
    if not isinstance(plain, LIF) or plain.reset != "value" or t_ref is None or np.any(np.asarray(t_ref) < plain.dt):
        return None
    precise = PreciseLIF(dt=plain.dt)
    if cell is plain:
        return precise, inputs
    if isinstance(cell, Synaptic) and cell.neuron is plain and isinstance(cell.synapse, Current | VoltageJump):
        at_the_end = jnp.full((len(inputs.arrivals), 1), plain.dt)
        return PreciseSynaptic(precise, cell.synapse), TimedDrive(inputs.arrivals[:, None], at_the_end, inputs.input)
    return None


def _scale(value: Array) -> Array:
    """Return the root mean square of a parameter, and 1 for zeros: one noise then suits times, voltages and weights."""
    size = jnp.sqrt(jnp.mean(value**2))
    return jnp.where(size > 0, size, 1.0)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    size = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / size) if size else float("nan")


def _verdict(gradient: dict[str, np.ndarray], found: Agreement) -> str:
    bad = [name for name, g in gradient.items() if not np.isfinite(g).all()]
    if bad:
        return f"the gradient is not finite in {', '.join(bad)}"
    if not np.isfinite(found.slope):
        return "undecided: the loss is not finite where the noise moves parameters; take less of it, or name others"
    if found.length == 0 and found.sloping:
        return "the gradient is zero where the smoothed loss has a slope"
    # Known to lead elsewhere, even if not whether the gradient points up or down.
    poor = abs(found.cosine) + 3.0 * found.doubt < 0.5
    if not (found.downhill or poor):
        seen = f"along the gradient the smoothed slope is {found.slope:.3g} with an error of {found.error:.3g}"
        return f"undecided: {seen} after {found.pairs} pairs; take more samples or more noise"
    ratio = found.length / found.norm
    size = "" if 0.1 <= ratio <= 10.0 else f", but {ratio:.2g} times as long"
    words = next(words for limit, words in GRADES.items() if found.cosine >= limit)
    words = "uphill: it lies" if found.downhill < 0 else words
    return f"{words}: cosine {found.cosine:.2f} ± {found.doubt:.2f} with the smoothed slope{size}"
