"""The two receptors of NEST's neurons, as it names their parameters."""

import numpy as np

from jaxlif.checks import numbers
from jaxlif.synapses import ConductanceParams, CurrentParams, DoubleExponentialConductanceParams, SynapticParams

_REVERSAL = {"e_rev": "E"}
# Of the names of synapses the parameters, whose fields NEST gives other names.
RECEPTORS: dict[str, tuple[type, dict[str, str]]] = {
    "delta": (type(None), {}),
    "exp": (CurrentParams, {"tau_syn": "tau_syn"}),
    "alpha": (CurrentParams, {"tau_syn": "tau_syn"}),
    "cond_exp": (ConductanceParams, {"tau_syn": "tau_syn"} | _REVERSAL),
    "cond_alpha": (ConductanceParams, {"tau_syn": "tau_syn"} | _REVERSAL),
    "cond_beta": (
        DoubleExponentialConductanceParams,
        {"tau_rise": "tau_rise", "tau_decay": "tau_decay"} | _REVERSAL,
    ),
}


def receptors(params: SynapticParams, synapse: str) -> dict[str, float]:
    """Return the parameters of a kind of synapse, each a number or [excitatory, inhibitory], in NEST's names."""
    kind, names = RECEPTORS[synapse]
    if type(params.synapse) is not kind:
        raise ValueError(
            f'params.synapse = {type(params.synapse).__name__}: synapse = "{synapse}" takes {kind.__name__}'
        )
    found: dict[str, float] = {}
    for field, name in names.items():
        value = np.asarray(numbers(field, getattr(params.synapse, field)), float)
        if value.shape not in ((), (1,), (2,)):
            rule = "NEST has two receptors, it must be a number or [excitatory, inhibitory]"
            raise ValueError(f"{field} has shape {value.shape}: {rule}")
        excitatory, inhibitory = np.broadcast_to(value, (2,)).tolist()
        found |= {f"{name}_ex": excitatory, f"{name}_in": inhibitory}
    return found
