"""What a network of populations is made of: groups of them, parameters, state and output."""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif import checks
from jaxlif.neurons import cell as protocol
from jaxlif.neurons.cell import SpikingNeuron
from jaxlif.neurons.precise import PreciseLIF
from jaxlif.neurons.wrappers import EscapeNoise, Noisy
from jaxlif.synapses import Drive, Kinds, PreciseSynaptic, Synapse, Synaptic, VoltageJump
from jaxlif.synapses.kinds import require_side


def synapse_of(cell: Any) -> Synapse | None:
    """Return the synapses of a cell, if it has any."""
    neuron = cell.neuron if isinstance(cell, EscapeNoise) else cell
    return neuron.synapse if isinstance(neuron, Synaptic) else None


def require_neuron(cell: Any) -> None:
    """Refuse what does not spike on the grid, or takes more than arrivals, a current and noise."""
    name, inner = protocol.kind_of(cell), cell.neuron if isinstance(cell, EscapeNoise) else cell
    if not protocol.is_cell(cell):
        raise ValueError(f"cell = {name}: it must be a cell, such as LIF(dt=0.1)")
    if isinstance(inner, PreciseLIF | PreciseSynaptic):
        raise ValueError(f"cell = {name}: its spikes lie between steps, and a network delivers them at their ends")
    if isinstance(inner, protocol.RefusesFeedback) and inner.no_feedback:
        raise ValueError(f"cell = {name}: a population passes spikes on, and {inner.no_feedback}")
    below = inner.neuron if isinstance(inner, Synaptic) else inner
    if protocol.input_kind(below) is not None or protocol.step_size(cell) is None:
        raise ValueError(f"cell = {name}: it must be a neuron, Synaptic around one, or EscapeNoise around these")


def require_shapes(params: Any, size: int, synapse: Synapse | None = None, kinds: int = 0) -> None:
    """Refuse parameters of other neurons than these: a leaf is a number or [n], of a synapse [K] or [K, n]."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        of_kinds = counts_kinds(path, synapse)
        allowed = [(), *((k, *n) for k in (1, kinds) for n in ((), (1,), (size,)))] if of_kinds else [(), (1,), (size,)]
        if jnp.shape(leaf) not in allowed:
            name, found = jax.tree_util.keystr(path, simple=True, separator="."), list(jnp.shape(leaf))
            wanted = f"[{kinds}] or [{kinds}, {size}]" if of_kinds else f"[{size}]"
            raise ValueError(f"{name} has shape {found}: it must be a number or {wanted}")


def counts_kinds(path: tuple[Any, ...], synapse: Synapse | None) -> bool:
    """Say whether a parameter of neurons is [K] or [K, n], of their kinds of synapse; those of ``Kinds`` have names."""
    of_synapse = any(getattr(key, "name", None) == "synapse" for key in path)
    return of_synapse and synapse is not None and not isinstance(synapse, Kinds)


def spread(name: str, current: Any, size: int, dtype: Any) -> Array:
    """Return a step's current of each neuron of a population."""
    if jnp.shape(current) not in ((), (1,), (size,)):
        raise ValueError(f"input {name!r} {list(jnp.shape(current))}: a step takes one number, or [{size}]")
    return jnp.broadcast_to(jnp.asarray(current, dtype), (size,))


@dataclass(frozen=True)
class Group:
    """Populations whose neurons are one cell: their names, sizes, the cell, and its receptors by name."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    cell: SpikingNeuron
    receptors: tuple[str, ...]

    @property
    def size(self) -> int:
        """The number of neurons."""
        return sum(self.sizes)

    @property
    def synapse(self) -> Synapse | None:
        """The neurons' synapses, if they have any."""
        return synapse_of(self.cell)

    @property
    def parts(self) -> dict[str, slice]:
        """Where each population is."""
        ends = list(accumulate(self.sizes, initial=0))
        return {name: slice(*ends[i : i + 2]) for i, name in enumerate(self.names)}

    def check(self, params: Any, size: int) -> None:
        """Refuse parameters of other neurons, and what breaks a rule of the cell or of its receptors' names."""
        require_shapes(params, size, self.synapse, len(self.receptors))
        protocol.check_cell(self.cell, params)
        e_rev: Any = getattr(getattr(params, "synapse", None), "e_rev", None)
        for k, receptor in enumerate(() if e_rev is None else self.receptors):
            own = e_rev[min(k, len(e_rev) - 1)] if jnp.ndim(e_rev) else e_rev
            require_side(receptor, own, protocol.innermost(params))

    def check_weight(self, receptor: str, weight: Any) -> None:
        """Refuse weights of the wrong sign, where they are at hand: of a conductance, and by the receptor's name."""
        synapse: Any = self.synapse
        if isinstance(synapse, Kinds):
            synapse = dict(synapse.kinds)[receptor]
        synapse.check_arrivals(weight)
        for kind, sign, words in (("exc", 1.0, "0 or more"), ("inh", -1.0, "0 or less")):
            if synapse.signed and receptor.startswith(kind) and checks.concrete(weight):
                rule = f"into the receptor {receptor!r} it must be {words}"
                checks.require(sign * np.asarray(weight) >= 0.0, "weight", weight, "", rule)

    def input(self, arriving: Array, current: Array, noise: Any) -> Any:
        """Return a step's input in the form that the cell takes."""
        x: Any = current
        if self.synapse is not None:
            jumps = isinstance(self.synapse, VoltageJump)
            x = Drive(arriving if jumps else arriving.reshape((len(self.receptors), self.size)), current)
        return Noisy(x, noise) if isinstance(self.cell, EscapeNoise) else x

    def merge(self, params: dict[str, Any]) -> Any:
        """Return the parameters of all populations as one, each leaf for every neuron where there are several."""
        own = [params[name] for name in self.names]
        if len(own) == 1:
            return own[0]
        return jax.tree_util.tree_map_with_path(lambda path, *leaves: self._merged(path, leaves), *own)

    def _merged(self, path: tuple[Any, ...], leaves: tuple[Any, ...]) -> Array:
        """Return [N], or [K, N] of a synapse's leaf, whose first axis counts its kinds."""
        arrays = [jnp.asarray(leaf) for leaf in leaves]
        kinds = counts_kinds(path, self.synapse) and max(map(jnp.ndim, arrays)) > 0
        shape = jnp.broadcast_shapes(*(a.shape[:1] for a in arrays)) if kinds else ()
        own = [a[:, None] if kinds and a.ndim == 1 else a for a in arrays]
        return jnp.concatenate(
            [jnp.broadcast_to(a, (*shape, n)) for a, n in zip(own, self.sizes, strict=True)], axis=-1
        )


class PopulationState(NamedTuple):
    """The groups' neurons; what arrives at the end of the coming step [P] and later [2 D P]; steps done; noise [n]; the
    state of synapses that tire, by projection.
    """

    neurons: tuple[Any, ...]
    arriving: Array
    line: Array
    time: Array
    drives: tuple[Any, ...]
    short_term: tuple[Any, ...]


class Drawn(NamedTuple):
    """The random numbers of a step: of each drive, and of each group with escape noise."""

    drives: tuple[Array, ...]
    noise: tuple[Any, ...]


class PopulationOutput(NamedTuple):
    """Spikes and voltage, mV, after the reset, at the step's end, by population, [n] each."""

    spikes: dict[str, Array]
    v: dict[str, Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Table:
    """Where synapses end, by source: the place of a receptor [n, K], and the number of the synapse, E for none.

    The number counts through all projections, in their order.
    """

    receptor: Array | np.ndarray
    synapse: Array | np.ndarray


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class PopulationParams:
    """Parameters of a network of populations; all but table and key can be fitted.

    Args:
        neurons: by population, what its cell takes.
        weight: by projection, one number or that of each synapse [E], pA, nS or mV as the receptor says.
        delay: by projection, one number or that of each synapse [E], ms.
        drives: by drive, :class:`PoissonParams` or :class:`NoiseParams`.
        short_term: by projection that has one, :class:`jaxlif.synapses.TsodyksMarkramParams` of its source's neurons.
        table: the synapses.
        key: of all that is random.
    """

    neurons: dict[str, Any]
    weight: dict[str, Any]
    delay: dict[str, Any]
    drives: dict[str, Any]
    short_term: dict[str, Any]
    table: Table
    key: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class PreparedPopulations:
    """By group the neurons' parameters; the table's weights and places on the line [n, K]; the rest as it was."""

    neurons: tuple[Any, ...]
    weight: Array
    target: Array
    drives: dict[str, Any]
    short_term: dict[str, Any]
    key: Array


def voltage(state: Any) -> Array:
    """Return the voltage of a neuron's state, or of what is around it."""
    found: Array = voltage(state.neuron) if hasattr(state, "neuron") else state.v
    return found


def at_voltage(state: Any, v: Array) -> Any:
    """Return the state at another voltage."""
    return state._replace(neuron=at_voltage(state.neuron, v)) if hasattr(state, "neuron") else state._replace(v=v)
