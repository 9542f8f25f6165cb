"""What every cell shares: the contract and its optional parts, the exact relaxation, a fresh state's shape and dtype.

A *cell* is a frozen, hashable value that holds numerics and no arrays; *params* are a pytree of physics; *state* and
*output* are named tuples. Anything with ``init_state`` and ``step`` can be simulated, fitted and trained.
"""

from functools import reduce
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array

from jaxlif import checks


@runtime_checkable
class Cell(Protocol):
    """The one contract: a fresh state, and one step of time. What else a cell may have is declared below it."""

    def init_state(self, params: Any, x: Any) -> Any:
        """Return the state before the first step; ``x`` is one time slice of the input, for its shape."""

    def step(self, params: Any, state: Any, x: Any) -> tuple[Any, Any]:
        """Advance from t to t + dt under the input ``x`` held over the step; return (state, output)."""


@runtime_checkable
class Scans(Protocol):
    """A cell that offers the whole time axis at once; :func:`jaxlif.simulation.scan_cell` uses it."""

    def scan(self, params: Any, state: Any, inputs: Any, *, unroll: int = 1) -> tuple[Any, Any]:
        """Return the final state and the outputs [T, ...], equal to stepping; ``unroll`` steps a turn of its loops."""


@runtime_checkable
class Prepares(Protocol):
    """A cell whose step computes much from its parameters alone; :func:`prepared` asks for it, before a loop."""

    def prepare(self, params: Any) -> Any:
        """Return the parameters with that beside them, for ``step`` to find there."""


@runtime_checkable
class Checks(Protocol):
    """A cell with rules for its parameters beside their own, such as one with its dt; :func:`check_cell` asks."""

    def check(self, params: Any) -> None:
        """Raise ValueError where a concrete parameter breaks a rule."""


@runtime_checkable
class ChecksInputs(Protocol):
    """A cell with rules for its inputs; :func:`check_inputs` asks."""

    def check_inputs(self, inputs: Any) -> None:
        """Raise ValueError where a concrete input breaks a rule."""


@runtime_checkable
class Takes(Protocol):
    """A cell whose input is a named tuple, or None for an array; :func:`input_kind` asks. Layers pass arrays."""

    takes: Any


@runtime_checkable
class Timed(Protocol):
    """A cell with a step, ms; :func:`step_size` asks."""

    dt: Any


@runtime_checkable
class Wraps(Protocol):
    """A cell, or the parameters of one, around those of a ``neuron``; :func:`innermost` asks."""

    neuron: Any


@runtime_checkable
class HasSpikes(Protocol):
    """An output that shows spikes; layers pass them on, or else the voltage."""

    spikes: Any


@runtime_checkable
class RefusesFeedback(Protocol):
    """A cell whose spikes cannot be fed back to it, with the reason, or None; recurrent layers ask."""

    no_feedback: Any


@runtime_checkable
class ReverseOnly(Protocol):
    """A neuron whose step has a derivative backwards alone; layers with a rule of their own for the other ask."""

    reverse_only: Any


class SpikingOutput(NamedTuple):
    """Spikes [N], 0 or 1, and the voltage [N], mV, after the reset, at the step's end."""

    spikes: Array
    v: Array


@runtime_checkable
class SpikingNeuron(Cell, Protocol):
    """A cell whose step is three verbs, so that synapses and teacher forcing compose with it. A wrapper may add to the
    voltage between the first two, or replace the spikes between the last two.
    """

    @property
    def dt(self) -> float:
        """Step, ms."""

    def integrate(self, params: Any, state: Any, x: Any) -> tuple[Any, Array]:
        """Return the state with everything but the voltage advanced, and the voltage at the step's end."""

    def emit(self, params: Any, state: Any, v: Array) -> tuple[Array, Array]:
        """Return the voltage with refractory neurons held, and the spikes that it causes."""

    def settle(self, params: Any, state: Any, v: Array, spikes: Array) -> tuple[Any, Array]:
        """Return the state and the voltage after ``spikes``: reset, refractoriness started or counted down."""

    def step(self, params: Any, state: Any, x: Any) -> tuple[Any, Any]:
        """Advance one step under the input ``x``, for a plain neuron the current [N], pA, held over it."""
        state, v = self.integrate(params, state, x)
        v, spikes = self.emit(params, state, v)
        state, v = self.settle(params, state, v, spikes)
        return state, SpikingOutput(spikes, v)


class Opened(Protocol):
    """What synapses do within one step, s ms after its start: the current :math:`I(s) - g(s) (v(s) - v(0))`, pA, into
    the neuron. Both are known functions of time: what follows the voltage in another way has been made linear in it.
    """

    def current(self, *s: float) -> list[Array]:
        """Return for each time the current [N], pA, that would flow at the voltage of the step's start."""

    def conductance(self, *s: float) -> list[Array]:
        """Return what it falls by for each mV above that, [N], nS; where NMDA opens with the voltage, less than 0."""

    def charge(self, *s: float) -> list[Array]:
        """Return for each time the integral of the conductance from 0 to it, [N], nS ms."""

    def into(self, s: Array, rise: Array) -> Array:
        """Return the current [N], pA, at times [N] and voltages [N] ``rise`` mV above that of the start, NMDA's too:
        what a neuron takes that is not linear itself.
        """


class OpenNeuron(SpikingNeuron, Protocol):
    """A spiking neuron that integrates itself under currents and conductances that change within a step.

    All verbs are ``integrate`` with synapses beside the input, and equal it where none is open. A class that changes
    ``integrate`` has to bring its own: those that it inherits are refused.
    """

    def respond(self, params: Any, *tau: Array) -> Any:
        """Return, for :meth:`integrate_currents`, what a current does in a step: 1 pA that decays with ``tau``, or with
        several what 1 pA becomes that passes through such low-pass filters in a row, each of gain 1 ms: its course is
        ``cascade(s, 1/tau_1, 1/tau_2)``. K kinds go through a vmap.
        """

    def integrate_currents(self, params: Any, state: Any, x: Any, current: Array, response: Any) -> tuple[Any, Array]:
        """Integrate under the sum of K courses too, whose sizes ``current`` are [K, N] and ``response`` [K, ...]."""

    def integrate_conductances(self, params: Any, state: Any, x: Any, opened: Opened) -> tuple[Any, Array]:
        """Integrate under conductances too, which may have currents with them; ``state`` has the voltage, v. For NMDA,
        whose conductance follows the voltage, the same neuron is also asked with half the dt.
        """


class RemembersJumps(SpikingNeuron, Protocol):
    """A spiking neuron whose voltage forgets a jump at its own pace; its state has the ``refractory`` steps left."""

    def remaining(self, params: Any, state: Any) -> Array:
        """Return what is left of 1 mV, [N], that arrives in this step, after as many more as it is refractory."""


Parameter = Array | float  # of one neuron, or of each, [N]
SPIKING = ("integrate", "emit", "settle")
KEPT = "kept"  # what a step calls by this name, by jax.ad_checkpoint.checkpoint_name, the backward pass has at hand


def require_verbs(wrapper: Any, neuron: Any, verbs: tuple[str, ...]) -> None:
    """Refuse a neuron that does not offer what a wrapper calls, when the wrapper is made."""
    missing = [verb for verb in verbs if not _offers(neuron, verb)]
    if missing:
        kind, name = type(wrapper).__name__, kind_of(neuron)
        needed = f"{kind} needs a neuron with {', '.join(verbs)}"
        raise ValueError(f"neuron = {name}: {needed}, and {name} has no {missing[0]} of its own")


def _offers(neuron: Any, verb: str) -> bool:
    """Say whether a neuron has a verb that goes with its own ``integrate``, not with one that it replaced."""
    ranks = {name: i for i, kind in reversed([*enumerate(type(neuron).__mro__)]) for name in vars(kind)}
    own = verb in SPIKING or ranks.get(verb, 0) <= ranks.get("integrate", 0)
    return own and callable(getattr(neuron, verb, None)) and not isinstance(neuron, type)


def kind_of(cell: Any) -> str:
    """Name the kind of a cell, or a class that stands where a cell should."""
    return f"the class {cell.__name__}" if isinstance(cell, type) else type(cell).__name__


def is_cell(value: Any) -> bool:
    """Say whether a value is a cell, no class of cells."""
    return isinstance(value, Cell) and not isinstance(value, type)


def input_kind(cell: Any) -> type | None:
    """Return the named tuple that a cell takes, None for an array."""
    return cell.takes if isinstance(cell, Takes) else None


def step_size(cell: Any) -> float | None:
    """Return the dt, ms, of a cell or of the neuron that it wraps, None for one without time."""
    while not isinstance(cell, Timed) and isinstance(cell, Wraps):
        cell = cell.neuron
    return cell.dt if isinstance(cell, Timed) else None


def innermost(thing: Any) -> Any:
    """Return what is below all wrappers, of cells or of parameters."""
    return innermost(thing.neuron) if isinstance(thing, Wraps) else thing


def prepared(cell: Any, params: Any) -> Any:
    """Return the parameters as the cell's ``prepare`` makes them, or as they are where it has none."""
    return cell.prepare(params) if isinstance(cell, Prepares) else params


def check_cell(cell: Any, params: Any) -> None:
    """Let a cell that has rules of its own check its parameters."""
    if isinstance(cell, Checks):
        cell.check(params)


def check_inputs(cell: Any, inputs: Any) -> None:
    """Refuse an input of another form than the cell takes, or one that breaks a rule of the cell."""
    takes, name = input_kind(cell), type(cell).__name__
    if takes is not None and not isinstance(inputs, takes):
        wanted = f"{takes.__name__}({', '.join(vars(takes)['_fields'])})"
        raise ValueError(f"inputs = {type(inputs).__name__}: {name} takes a {wanted}")
    if isinstance(cell, ChecksInputs):
        cell.check_inputs(inputs)


def require_array_input(wrapper: Any, cell: Any, what: str = "neuron") -> None:
    """Refuse no cell, and one whose input is a named tuple, where a layer passes an array, when the layer is made."""
    takes, kind, name = input_kind(cell), type(wrapper).__name__, kind_of(cell)
    if not is_cell(cell):
        raise ValueError(f"{what} = {name}: {kind} needs a cell, with init_state and step")
    if takes is not None:
        hint = "; put it into Arriving" if takes.__name__ == "Drive" else ""
        raise ValueError(f"{what} = {name}: {kind} passes an array, and {name} takes a {takes.__name__}{hint}")


def relax(v: Array, v_inf: Array, tau: Array | float, dt: Array | float) -> Array:
    r"""Relax for one step, :math:`v + (v_\infty - v)(1 - e^{-dt/\tau})`: exact (Rotter & Diesmann 1999)."""
    # expm1 keeps the small increment accurate in float32, where 1 - exp(-dt/tau) loses digits.
    return v - (v_inf - v) * jnp.expm1(-dt / tau)


def over_kinds(x: Array) -> Array:
    """Add up what is [K, N], one kind after the other: ``sum`` has an order, and rounding, that depends on N."""
    total: Array = reduce(jnp.add, [*x])
    return total


def state_dtype(*trees: Any) -> jnp.dtype:
    """Return the floating dtype, single at least, that parameters and input agree on, JAX's default for none."""
    leaves = [x for x in jax.tree.leaves(trees) if jnp.issubdtype(jnp.result_type(x), jnp.floating)]
    # In half precision a voltage stops where a step moves it by less than its last digit.
    return jnp.result_type(float, *(jnp.float32 if jnp.result_type(x) in checks.HALF else x for x in leaves))


def initial_voltage(v_rest: Any, params: Any, x: Any) -> Array:
    """Return the resting voltage in the shape that the parameters' leaves and the input ``x`` broadcast to."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves((params, x))]
    dtype = state_dtype(params, x)
    return jnp.broadcast_to(jnp.asarray(v_rest, dtype), jnp.broadcast_shapes(*shapes))


def widened(x: Any, targets: tuple[int, ...]) -> Any:
    """Return a neuron's input, the innermost ``input`` of named tuples, for as many neurons as the rest reaches."""
    if issubclass(type(x), tuple):  # a named one, whose fields mypy does not know
        return x._replace(input=widened(x.input, targets))
    shape = jnp.shape(x)
    if any(n != m and 1 not in (n, m) for n, m in zip(shape[::-1], targets[::-1], strict=False)):
        raise ValueError(
            f"input has shape {shape} in a step, and what comes with it {targets}: they must be the same neurons"
        )
    return jnp.broadcast_to(x, jnp.broadcast_shapes(shape, targets))
