"""Several kinds of synapse on one neuron."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlif import checks
from jaxlif.neurons import cell as protocol
from jaxlif.synapses.base import Drive, Synapse, SynapticParams, SynapticState
from jaxlif.synapses.courses import TimedSynapse, integrate_courses
from jaxlif.synapses.currents import Current, integrate_flows


@dataclass(frozen=True)
class Kinds(Synapse):
    """Different kinds of synapse on one neuron, integrated together.

    Row k of the arrivals [K, N] belongs to the k-th kind; ``SynapticParams.synapse`` is a dict of their parameters by
    the same names, each a number or [N]. An excitatory kind, one whose name begins with exc, ampa or nmda, must reverse
    above rest, an inhibitory one, inh or gaba, below threshold.

    Args:
        kinds: currents and conductances by name. Voltage jumps go around: ``Synaptic(Synaptic(...), VoltageJump())``.

    Raises:
        ValueError: for what is no such synapse.

    Example:
        >>> import jaxlif as jl
        >>> cell = jl.Synaptic(jl.LIF(), Kinds({"ampa": jl.Conductance(), "nmda": jl.NMDA(), "gaba": jl.Conductance()}))
        >>> gaba = jl.ConductanceParams(tau_syn=10.0, e_rev=-75.0)
        >>> own = {"ampa": jl.ConductanceParams(tau_syn=2.0), "nmda": jl.NMDAParams(), "gaba": gaba}
        >>> arrivals = jnp.zeros((300, 3)).at[10].set(jnp.array([5.0, 5.0, 0.0])).at[20, 2].set(3.0)  # nS
        >>> _, output = jl.simulate(cell, jl.SynapticParams(synapse=own), jl.Drive(arrivals, jnp.zeros(300)))
        >>> bool(output.v.max() > -68.0)
        True
    """

    kinds: tuple[tuple[str, TimedSynapse], ...]
    params: ClassVar[type | None] = dict

    def __post_init__(self) -> None:
        pairs = tuple(self.kinds.items()) if isinstance(self.kinds, Mapping) else tuple(self.kinds)
        object.__setattr__(self, "kinds", pairs)
        for name, kind in pairs:
            if not isinstance(kind, TimedSynapse):
                found = protocol.kind_of(kind)
                raise ValueError(f"kinds has {name} = {found}: it must be a current or a conductance")
        if not pairs or len(dict(pairs)) < len(pairs):
            raise ValueError(f"kinds = {[name for name, _ in pairs]}: there must be one at least, each of its own name")

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        """The verbs of the neuron that all kinds together call: exact ones where all are currents."""
        return Current.needs if self._exact else ("integrate_conductances",)

    @property
    def signed(self) -> bool:  # type: ignore[override]
        """Whether any weight may be negative."""
        return any(kind.signed for _, kind in self.kinds)

    @property
    def _exact(self) -> bool:
        return all(isinstance(kind, Current) for _, kind in self.kinds)

    def check(self, params: SynapticParams) -> None:
        """Refuse other kinds than these, and reversal potentials on the wrong side."""
        super().check(params)
        names = [name for name, _ in self.kinds]
        if set(params.synapse) != set(names):
            raise ValueError(f"params.synapse has the kinds {sorted(params.synapse)}: they must be {sorted(names)}")
        membrane = protocol.innermost(params.neuron)
        for name, kind in self.kinds:
            own = params.synapse[name]
            kind.check(SynapticParams(neuron=params.neuron, synapse=own))
            require_side(name, getattr(own, "e_rev", None), membrane)

    def check_arrivals(self, arrivals: Any) -> None:
        """Refuse negative conductances in the rows of those kinds, where they are at hand."""
        if checks.concrete(arrivals) and np.ndim(arrivals) > 1 and np.shape(arrivals)[1] % len(self.kinds) == 0:
            rows = np.reshape(arrivals, (len(arrivals), len(self.kinds), -1))  # a layer's are [T, K N]
            for k, (_, kind) in enumerate(self.kinds):
                kind.check_arrivals(rows[:, k])

    def targets(self, params: SynapticParams, x: Drive) -> tuple[int, ...]:
        """Return the shape of the neurons that arrivals and parameters reach."""
        return jnp.broadcast_shapes(*(kind.targets(own, row) for kind, own, row in self._each(params, x)))

    def init_state(self, params: SynapticParams, x: Drive) -> tuple[Any, ...]:
        """Return closed synapses of each kind, with an axis for the neurons where any has one."""
        x = x._replace(input=protocol.widened(x.input, self.targets(params, x)))
        return tuple(kind.init_state(own, row) for kind, own, row in self._each(params, x))

    def respond(self, neuron: Any, params: SynapticParams) -> tuple[Any, ...] | None:
        """Return the neuron's response to all courses, where all kinds are currents."""
        if not self._exact:
            return None
        each = ((kind, self._own(params, name)) for name, kind in self.kinds)
        return tuple(response for kind, own in each for response in kind.respond(neuron, own))

    def integrate(self, neuron: Any, params: Any, state: SynapticState, x: Drive) -> tuple[SynapticState, Array]:
        """Integrate the neuron under its input and all kinds, then add the arrivals to these."""
        each = [(*found, y) for found, y in zip(self._each(params, x), state.synapse, strict=True)]
        branches = [kind.branch(own.synapse, y, state.neuron.v) for kind, own, _, y in each]
        if self._exact:
            flows = [flow for branch in branches for flow in branch.flows]
            inner, v = integrate_flows(neuron, params, state, x, flows, params.response)
        else:
            inner, v = integrate_courses(neuron, params, state, x, branches)
        after = tuple(kind.advanced(own.synapse, y, neuron.dt, row.arrivals) for kind, own, row, y in each)
        return SynapticState(inner, after), v

    def _each(self, params: Any, x: Drive) -> list[tuple[TimedSynapse, SynapticParams, Drive]]:
        """Return each kind, its parameters and what arrives at it, as if it were alone."""
        if jnp.shape(x.arrivals)[:1] != (len(self.kinds),):
            names = ", ".join(name for name, _ in self.kinds)
            found = f"arrivals have shape {jnp.shape(x.arrivals)} in a step"
            raise ValueError(f"{found}: they must be [{len(self.kinds)}] or [{len(self.kinds)}, N], of {names}")
        rows = (x._replace(arrivals=x.arrivals[k : k + 1]) for k in range(len(self.kinds)))
        return [(kind, self._own(params, name), row) for (name, kind), row in zip(self.kinds, rows, strict=True)]

    def _own(self, params: Any, name: str) -> SynapticParams:
        """Return the parameters of one kind, [N] as [1, N]."""
        own = jax.tree.map(lambda leaf: leaf[None] if jnp.ndim(leaf) else leaf, params.synapse[name])
        return SynapticParams(neuron=params.neuron, synapse=own)


def require_side(name: str, e_rev: Any, membrane: Any) -> None:
    """Refuse an inhibitory kind that reverses above threshold, and an excitatory one that does below rest."""
    v_th, v_rest = getattr(membrane, "v_th", None), getattr(membrane, "v_rest", None)
    if name.lower().startswith(("inh", "gaba")) and checks.concrete(e_rev, v_th):
        rule = "what inhibits must reverse below v_th"
        checks.require(np.asarray(e_rev) < np.asarray(v_th), f"e_rev of {name}", e_rev, "mV", rule)
    if name.lower().startswith(("exc", "ampa", "nmda")) and checks.concrete(e_rev, v_rest):
        rule = "what excites must reverse above v_rest"
        checks.require(np.asarray(e_rev) > np.asarray(v_rest), f"e_rev of {name}", e_rev, "mV", rule)
