"""Which layers of a network are silent, seen while a loss is computed: the loss itself is one number."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlif.networks.layers import NetworkOutput
from jaxlif.networks.liveliness import layer_name
from jaxlif.neurons.cell import HasSpikes
from jaxlif.simulation import witnessed


def silent_layers(loss: Callable[[], Any]) -> list[str]:
    """Compute a loss and name the hidden layers that spiked in no simulation of it; what is jitted within is not seen.
    A network's last layer may well be silent: a readout of voltages.
    """
    fired: dict[tuple[Any, str], bool] = {}

    def _note(place: tuple[Any, str], spikes: Any) -> np.ndarray:
        fired[place] = bool(np.any(spikes)) or fired.get(place, False)
        return np.zeros(np.shape(spikes), bool)

    def _see(cell: Any, output: Any) -> None:
        for name, its in [*_leaves(cell, output)][:-1]:
            if isinstance(its, HasSpikes):
                # The way out of a vmap, a batch at once.
                any_here, here = jax.lax.stop_gradient(jnp.any(its.spikes != 0)), jax.ShapeDtypeStruct((), bool)
                jax.pure_callback(partial(_note, (cell, name)), here, any_here, vmap_method="expand_dims")

    with witnessed(_see):
        jax.block_until_ready(loss())
    return [name for (_, name), alive in fired.items() if not alive]


def _leaves(layer: Any, output: Any, path: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    if isinstance(output, NetworkOutput):
        for i, (inner, its) in enumerate(zip(layer.layers, output.layers, strict=True)):
            yield from _leaves(inner, its, (*path, i))
    else:
        yield layer_name(layer, path), output
