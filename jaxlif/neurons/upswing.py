"""The way of an exponential neuron to its spike, in a coordinate in which the explosion is linear in time."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif.neurons.cell import Parameter, relax
from jaxlif.neurons.lif import refractory_steps

ALONE, WITH_SYNAPSES = 0.1, 0.034  # ms, of the longest substep: synapses may be as fast as 0.2 ms
TO_SPIKE = 24  # substeps more at most, each 0.4 of the time to a spike
CLOSE = 1e-4  # of tau_m: so close to the peak the rest of the way has a closed form
# Butcher's method of fifth order (1964, doi:10.1017/S1446788700023387), whose weights are Boole's.
_NODES = (0.25, 0.25, 0.5, 0.75, 1.0)
_EARLY: tuple[tuple[float, ...], ...] = ((0.25,), (0.125, 0.125), (0.0, -0.5, 1.0), (0.1875, 0.0, 0.0, 0.5625))
_STAGES = (*_EARLY, (-3.0 / 7.0, 2.0 / 7.0, 12.0 / 7.0, -12.0 / 7.0, 8.0 / 7.0))
_WEIGHTS = tuple(weight / 90.0 for weight in (7.0, 0.0, 32.0, 12.0, 32.0, 7.0))


class Course(NamedTuple):
    """Neurons within a step: the time since its start, ms, the coordinate p, w, and whether, 1 or 0, and when p was
    that of the peak, with w there. Each [N]: every neuron has a clock of its own.
    """

    t: Array
    p: Array
    w: Array
    peaked: Array
    t_peak: Array
    w_peak: Array


Pair = tuple[Array, Array]  # of p and w
Slopes = Callable[[Array, Array, Array], Pair]
Drive = Callable[[Array, Array], Array]  # the current [N], pA, at times [N], ms, since the step's start and voltages

Known = tuple[Any, Drive, Pair]  # parameters, drive, and p of the peak and of the reset


def coordinate(params: Any, v: Parameter) -> Array:
    """Return p [N] of a voltage, mV, up to the peak; not 0 itself, nor what numbers cannot be divided by twice."""
    above = jnp.asarray((jnp.minimum(v, params.v_th) - params.v_t) / params.delta_t)
    least: float = float(jnp.finfo(above.dtype).tiny) ** 0.37
    return jax.nn.softplus(-above) + least


def _below(p: Array) -> Array:
    r"""Return :math:`1 - e^{-p}`, of a p near 0 too; a hyperbolic tangent is cheaper than an expm1."""
    half = jnp.tanh(0.5 * p)
    return 2.0 * half / (1.0 + half)


def mean_of_decay(x: Array) -> Array:
    r"""Return :math:`(1 - e^{-x})/x` of an x of 0 or more, cheaper than :func:`jaxlif.neurons.cascade.mean_decay`."""
    small = x < 1e-3
    safe = jnp.where(small, 1.0, x)
    return jnp.where(small, 1.0 - 0.5 * x * (1.0 - x / 3.0 * (1.0 - 0.25 * x)), _below(safe) / safe)


def voltage(params: Any, p: Array) -> Array:
    """Return the voltage [N], mV, of a coordinate."""
    return jnp.asarray(params.v_t - params.delta_t * (p + jnp.log(_below(p))))


def _slopes(params: Any, drive: Drive, held: Array, peak: Array, t: Array, p: Array, w: Array) -> Pair:
    r"""Return :math:`\dot p = -(e^{-p} + (1 - e^{-p})\,y/\Delta_T)/\tau_m`, y all but the exponential, and w's."""
    p = jnp.maximum(p, peak)
    below, v = _below(p), voltage(params, p)
    push = params.v_rest - v + params.r_m * (drive(t, v) - w)
    p_dot = -(1.0 - below + below * push / params.delta_t) / params.tau_m
    return jnp.where(held, 0.0, p_dot), (params.a * (v - params.v_rest) - w) / params.tau_w


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def course_of(steps: tuple[float, float], known: Known, held: Array, start: Course) -> Course:
    """Take substeps until every neuron is at the step's end; ``steps`` are that step and the longest substep, ms.

    A loop that ends by itself has no derivative but this one, in reverse, which takes the same substeps back.
    """
    end: Course = _forth(steps, known, held, start, lambda n, course, kept: None)[0]
    return end


def _forth(steps: tuple[float, float], known: Known, held: Array, start: Course, keep: Any) -> Any:
    """Return the course at the end, the number of substeps, and what ``keep`` made of those before each of them."""
    count = _count(*steps)

    def _advanced(found: tuple[Course, Array, Any]) -> tuple[Course, Array, Any]:
        course, n, kept = found
        return _substep(steps, known, held, count - n, course), n + 1, keep(n, course, kept)

    # One more: who reaches the peak in the last goes on from there.
    rows = jax.tree.map(lambda x: jnp.zeros((count + 1, *x.shape), x.dtype), start)
    begin = (start, jnp.asarray(0), keep(jnp.asarray(0), start, rows))
    return jax.lax.while_loop(lambda found: jnp.any(found[0].t < steps[0]), _advanced, begin)


def _kept_forth(steps: tuple[float, float], known: Known, held: Array, start: Course) -> tuple[Course, Any]:
    def _keep(n: Array, course: Course, kept: Course) -> Course:
        return Course(*(rows.at[n].set(row) for rows, row in zip(kept, course, strict=True)))

    end, n, kept = _forth(steps, known, held, start, _keep)
    return end, (known, held, kept, n)


def _back(steps: tuple[float, float], found: Any, slope: Course) -> tuple[Known, None, Course]:
    """Return the slopes with respect to what is known and to the start, from those with respect to the end."""
    known, held, kept, taken = found

    def _before(found: tuple[Array, Course, Known]) -> tuple[Array, Course, Known]:
        n, slope, total = found
        again = partial(_substep, steps, refractory=held, turns=_count(*steps) + 1 - n)
        pull = jax.vjp(lambda *x: again(x[0], course=x[1]), known, jax.tree.map(lambda rows: rows[n - 1], kept))[1]
        more, slope = pull(slope)
        return n - 1, slope, jax.tree.map(jnp.add, total, more)

    begin = (taken, slope, jax.tree.map(jnp.zeros_like, known))
    _, slope, total = jax.lax.while_loop(lambda found: found[0] > 0, _before, begin)
    return total, None, slope


course_of.defvjp(_kept_forth, _back)


def _count(dt: float, longest: float) -> int:
    """Return how many substeps a step has at most."""
    return TO_SPIKE + int(np.ceil(dt / longest - 1e-9))


def _substep(steps: tuple[float, float], known: Known, refractory: Array, turns: Array, course: Course) -> Course:
    """Advance each neuron that is not at the step's end by a substep of its own, the first of ``turns`` at most, and
    reset it at its peak.
    """
    (dt, longest), (params, drive, (peak, reset)) = steps, known
    (t, p, w, *_), peaked = course, course.peaked > 0.0
    held = refractory | (peaked & (refractory_steps(params.t_ref, dt) > 0))
    slopes, left = partial(_slopes, params, drive, held, peak), dt - t
    first = slopes(t, p, w)
    even = jnp.maximum(left, 0.0) / jnp.maximum(jnp.asarray(turns, t.dtype), 1.0)
    share = jnp.minimum(longest, _share(params, jnp.where(peaked, p, p - peak), p, first[0], even))
    ends = (turns <= 1) | (share >= left)
    h = jnp.where(ends, left, share)
    p_new, w_new, speed = _runge_kutta(slopes, first, t, p, w, h)
    # Past the peak the slope stays: so does the time since.
    passes = (p_new <= peak) & (left > 0.0) & ~held & ~peaked
    beyond = jnp.where(passes, jnp.minimum((peak - p_new) / jnp.where(passes & (speed > 0.0), speed, 1.0), h), 0.0)
    near = (first[0] < 0.0) & (p - peak <= -first[0] * jnp.minimum(CLOSE * params.tau_m, left)) & (left > 0.0) & ~peaked
    rest, v_rest = _rest_of_the_way(params, slopes, first, near, peak, t, p, w)
    arrives = near | passes
    t_peak = jnp.where(near, t + rest, t + h - beyond)
    driven = params.a * (jnp.where(near, v_rest, params.v_th) - params.v_rest)
    w_peak = relax(jnp.where(near, w, w_new), driven, params.tau_w, jnp.where(near, rest, -beyond))
    return Course(
        t=jnp.where(arrives, t_peak, jnp.where(ends, dt, t + h)),
        p=jnp.where(arrives, reset, p_new),
        w=jnp.where(arrives, w_peak + params.b, w_new),
        peaked=jnp.where(arrives, 1.0, course.peaked),
        t_peak=jnp.where(arrives, t_peak, course.t_peak),
        w_peak=jnp.where(arrives, w_peak, course.w_peak),
    )


def _share(params: Any, way: Array, p: Array, p_dot: Array, least: Array) -> Array:
    """Return the next substep, ms, a share of the time to the peak and of that in which the explosion grows, of the
    latter at least what brings it to the step's end. What is exact does not depend on it: it has no gradient.
    """
    arrival = 0.4 * jnp.abs(way) / jnp.maximum(jnp.abs(p_dot), 1e-6)
    # Where p is large the exponential is a small part of the slope: of a relative error e^-p is left.
    lenient = 0.1 * _below(p) * jnp.exp(jnp.minimum(p, 30.0) / 6.0)
    growth = params.tau_m * jnp.abs(lenient) / jnp.maximum(jnp.abs(1.0 + params.tau_m * p_dot), 1e-6)
    return jax.lax.stop_gradient(jnp.minimum(arrival, jnp.maximum(growth, least)))


def _runge_kutta(slopes: Slopes, first: Pair, t: Array, p: Array, w: Array, h: Array) -> tuple[Array, Array, Array]:
    """Return p and w after a time h, and the speed of p's fall there, from their slopes now."""
    stages = [first]

    def _moved(weights: tuple[float, ...]) -> tuple[Array, Array]:
        parts = [(weight, stage) for weight, stage in zip(weights, stages, strict=True) if weight]
        p_dot, w_dot = (sum(weight * stage[i] for weight, stage in parts) for i in (0, 1))
        return p + h * p_dot, w + h * w_dot

    for node, weights in zip(_NODES, _STAGES, strict=True):
        stages.append(slopes(t + node * h, *_moved(weights)))
    return *_moved(_WEIGHTS), -stages[-1][0]


def _rest_of_the_way(
    params: Any, slopes: Slopes, first: Pair, near: Array, peak: Array, t: Array, p: Array, w: Array
) -> Pair:
    """Return the time from p to the peak close before it, ms, by Radau's two nodes, and the mean voltage on the way."""
    apart = p - peak > 1e-16  # what single precision can divide by twice
    way = jnp.where(near & apart, p - peak, 1.0)
    speed, later = (jnp.where(near, -p_dot, 1.0) for p_dot in (first[0], slopes(t, peak + way / 3.0, w)[0]))
    time = jnp.where(apart, way * (0.25 / speed + 0.75 / later), 0.0)
    y = peak / way  # the mean is that of -ln p over p from here to the peak
    return time, voltage(params, jnp.maximum(p, peak)) + params.delta_t * (1.0 - y * jnp.log((1.0 + y) / y))
