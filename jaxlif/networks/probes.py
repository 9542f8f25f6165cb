"""What is recorded of a network of populations beside its spikes."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxlif import checks
from jaxlif.fitting.bounds import named_leaves
from jaxlif.networks.groups import Group, PopulationOutput, PopulationState
from jaxlif.networks.populations import PopulationNetwork
from jaxlif.neurons import cell as protocol
from jaxlif.synapses import Kinds, VoltageJump


class Probe(NamedTuple):
    """What is recorded of a population beside its spikes, at the ends of steps.

    ``variable`` is "v", a receptor by name (its current, pA, or conductance, nS), or a part of the neuron's state, such
    as "w" or "currents.0". ``neurons`` are some of them, all by default.
    """

    population: str
    variable: str
    neurons: Any = None


def recorded(cell: PopulationNetwork, probe: Probe, state: PopulationState, output: PopulationOutput) -> Any:
    """Return what a probe sees at the end of a step, [n]."""
    index = next(i for i, group in enumerate(cell.groups) if probe.population in group.names)
    group, own = cell.groups[index], state.neurons[index]
    if probe.variable == "v":
        values = output.v[probe.population]
    elif probe.variable in group.receptors:
        values = _opened(group, own.synapse, probe.variable)[group.parts[probe.population]]
    else:
        leaves = named_leaves(protocol.innermost(own))
        if probe.variable not in leaves:
            known = ", ".join(("v", *group.receptors, *leaves))
            raise ValueError(f"variable = {probe.variable!r}: of {probe.population} there are {known}")
        values = leaves[probe.variable][group.parts[probe.population]]
    return values if probe.neurons is None else values[jnp.asarray(probe.neurons, int)]


def _opened(group: Group, state: Any, receptor: str) -> Any:
    """Return the current, pA, or conductance, nS, of one receptor, [N]."""
    k = group.receptors.index(receptor)
    if isinstance(group.synapse, VoltageJump):
        raise ValueError(f"variable = {receptor!r}: a voltage jump has no course to record")
    state, k = (state[k], 0) if isinstance(group.synapse, Kinds) else (state, k)
    return getattr(state, "value", state)[k]


def checked(cell: PopulationNetwork, probe: Probe) -> Probe:
    """Return a probe of neurons that are there, which can be hashed."""
    if probe.population not in (sizes := cell.population_sizes):
        raise ValueError(f"population {probe.population!r}: there is none; the populations are {', '.join(sizes)}")
    if probe.neurons is None:
        return probe
    index, size = checks.integers("neurons", np.asarray(probe.neurons), 1), sizes[probe.population]
    checks.require((index >= 0) & (index < size), "neurons", index, "", f"{probe.population} has 0 to {size - 1}")
    return probe._replace(neurons=tuple(index.tolist()))
