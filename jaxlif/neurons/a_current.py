"""A transient outward potassium current, of Hodgkin-Huxley form."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxlif.neurons.cell import Parameter, relax
from jaxlif.neurons.mechanisms import Mechanism


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class ACurrent(Mechanism):
    r"""The current :math:`g\, m_\infty(v)\, h\, (v - e_K)`, :math:`\tau_h \dot h = h_\infty(v) - h`.

    Both gates are logistic, of width 8 mV. Source: Harkin et al. 2022, doi:10.7554/eLife.72951.
    """

    g: Parameter = 1.0  # nS
    v_m: Parameter = -35.0  # half activation, mV
    v_h: Parameter = -65.0  # half inactivation, mV
    tau_h: Parameter = 40.0  # ms
    e_k: float = -90.0  # mV; without a prior it is not fitted

    positive: ClassVar[Mapping[str, str]] = {"g": "nS", "tau_h": "ms"}
    conductances: ClassVar[tuple[str, ...]] = ("g",)
    priors: ClassVar[Mapping[str, tuple[float | None, float]]] = {
        **{"g": (None, 2.0), "v_m": (None, 15.0), "v_h": (None, 15.0), "tau_h": (None, 1.0)}
    }

    def begin(self, v: Array) -> Array:
        """Return the state at a voltage held for long."""
        return jax.nn.sigmoid((self.v_h - v) / 8.0)

    def advance(self, state: Array, v: Array, dt: float) -> Array:
        """Return the state a step later."""
        return relax(state, self.begin(v), self.tau_h, dt)

    def current(self, state: Array, v: Array) -> Array:
        """Return the current, pA."""
        return self.g * jax.nn.sigmoid((v - self.v_m) / 8.0) * state * (v - jnp.asarray(self.e_k, v.dtype))
