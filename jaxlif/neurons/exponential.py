"""The onset of the sodium current, the exponential of the exponential integrate-and-fire neuron."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxlif.neurons.cell import Parameter
from jaxlif.neurons.mechanisms import Mechanism


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Exponential(Mechanism):
    r"""The inward current :math:`g \Delta_T e^{(v - v_T)/\Delta_T}`, g the leak's; past 3 widths it stays.

    Made to spike where a cell did, a neuron may be far above its own threshold. Source: Fourcaud-Trocmé et al. 2003,
    doi:10.1523/JNEUROSCI.23-37-11628.2003.
    """

    g: Parameter = 10.0  # nS
    v_t: Parameter = -50.0  # mV
    delta_t: Parameter = 2.0  # mV

    positive: ClassVar[Mapping[str, str]] = {"g": "nS", "delta_t": "mV"}
    priors: ClassVar[Mapping[str, tuple[float | None, float]]] = {"v_t": (None, 10.0), "delta_t": (None, 1.0)}

    def begin(self, v: Array) -> tuple[()]:
        """Return the state at a voltage held for long."""
        return ()

    def advance(self, state: tuple[()], v: Array, dt: float) -> tuple[()]:
        """Return the state a step later."""
        return ()

    def current(self, state: tuple[()], v: Array) -> Array:
        """Return the current, pA."""
        return -self.g * self.delta_t * jnp.exp(jnp.minimum((v - self.v_t) / self.delta_t, 3.0))
