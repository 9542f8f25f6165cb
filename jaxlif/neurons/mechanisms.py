"""Mechanisms that follow the voltage: currents through the membrane, and movements of the threshold.

A new one is a file with a frozen dataclass, registered as a pytree, whose leaves are its parameters: it is simulated,
fitted, audited and reported with the rest. ``a_current.py`` and ``exponential.py`` are two of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import jax
from jax import Array

from jaxlif import checks
from jaxlif.neurons.cell import Parameter, relax


class Mechanism(ABC):
    r"""What an adaptive neuron has beside its leak: a state that follows the voltage.

    A subclass brings ``begin`` and ``advance``, and :meth:`current` or :meth:`rise`. For a fit it says which of its
    parameters are ``positive``, and gives Gaussian ``priors``: by parameter the mean and the standard deviation, of the
    logarithm where it is positive. A mean of None is where the fit starts. An amplitude in nS has its prior times r_m.
    """

    positive: ClassVar[Mapping[str, str]] = {}  # with their units
    conductances: ClassVar[tuple[str, ...]] = ()  # in nS
    priors: ClassVar[Mapping[str, tuple[float | None, float]]] = {}

    @abstractmethod
    def begin(self, v: Array) -> Any:
        """Return the state after a long time at the voltage ``v`` [N], mV."""

    @abstractmethod
    def advance(self, state: Any, v: Array, dt: float) -> Any:
        """Return the state a step later, where the voltage was ``v`` [N], mV, when it began."""

    def current(self, state: Any, v: Array) -> Array | float:
        """Return the outward current of a step that begins with this state and voltage, [N], pA."""
        return 0.0

    def rise(self, state: Any) -> Array | float:
        """Return what the threshold has risen by at the end of a step, [N], mV."""
        return 0.0

    def moved(self, origin: Parameter, unit: Parameter, r_m: Parameter) -> Self:
        """Return the same where voltages count from ``origin``, mV, in units of ``unit``, mV, and r_m is 1."""
        raise ValueError(f"{type(self).__name__} has no form in normalised units")

    def check_as(self, name: str) -> None:
        """Raise ValueError where a concrete value of the mechanism called ``name`` breaks its rule."""
        for field in fields(self):  # type: ignore[arg-type]  # every mechanism is a dataclass
            value = getattr(self, field.name)
            if unit := self.positive.get(field.name):
                checks.require_positive(f"{name}.{field.name}", value, unit)
            else:
                unit = "nS" if field.name in self.conductances else "mV" * field.name.startswith(("v_", "e_"))
                checks.require_finite(f"{name}.{field.name}", value, unit)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class LowPassed(Mechanism):
    r"""A rectified voltage, low-passed: :math:`\tau \dot x = k\,\mathrm{softplus}((v - v_i)/k) - x`.

    Args:
        tau: time constant, ms.
        v_i: voltage above which it follows, mV.
        k: width of the bend at v_i, mV.
    """

    tau: Parameter
    v_i: Parameter
    k: Parameter

    positive: ClassVar[Mapping[str, str]] = {"tau": "ms", "k": "mV"}

    def begin(self, v: Array) -> Array:
        """Return the value that x approaches at the voltage ``v``, mV."""
        return self.k * jax.nn.softplus((v - self.v_i) / self.k)

    def advance(self, state: Array, v: Array, dt: float) -> Array:
        """Relax x for one step."""
        return relax(state, self.begin(v), self.tau, dt)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class VoltageCoupling(LowPassed):
    r"""A threshold that follows the voltage: above :math:`v_i` it rises by :math:`b x` of a :class:`LowPassed` x.

    As where depolarisation inactivates sodium channels.

    Args:
        b: coupling, dimensionless.

    Source: Mensi et al. 2016, doi:10.1371/journal.pcbi.1004761.
    """

    b: Parameter = 0.2
    tau: Parameter = 8.0
    v_i: Parameter = -48.0
    k: Parameter = 3.0

    priors: ClassVar[Mapping[str, tuple[float | None, float]]] = {
        "b": (0.0, 1.0),
        "tau": (None, 1.5),
        "v_i": (None, 15.0),
        "k": (1.1, 1.0),  # 3 mV, give or take a factor e: a narrow bend is as good as a corner
    }

    def rise(self, state: Array) -> Array:
        """Return :math:`b x`, mV."""
        return self.b * state

    def moved(self, origin: Parameter, unit: Parameter, r_m: Parameter) -> Self:
        """Return the same coupling in other units of the voltage."""
        return replace(self, v_i=(self.v_i - origin) / unit, k=self.k / unit)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class MembraneCurrent(LowPassed):
    r"""A current :math:`a x` that the voltage opens above :math:`v_i`: outward for a > 0, with x of :class:`LowPassed`.

    Below v_i = -85 mV and with a < 0 it rectifies inwardly; with v_i far below every voltage it is the subthreshold
    adaptation of :class:`AdaptiveLIFParams`.

    Args:
        a: conductance, nS.
    """

    a: Parameter = 0.0
    tau: Parameter = 100.0
    v_i: Parameter = -40.0
    k: Parameter = 4.0

    conductances: ClassVar[tuple[str, ...]] = ("a",)
    priors: ClassVar[Mapping[str, tuple[float | None, float]]] = {
        "a": (0.0, 3.0),
        "tau": (None, 1.5),
        "v_i": (None, 30.0),
    }

    def current(self, state: Array, v: Array) -> Array:
        """Return :math:`a x`, pA."""
        return self.a * state

    def moved(self, origin: Parameter, unit: Parameter, r_m: Parameter) -> Self:
        """Return the same current in other units of voltage and current."""
        return replace(self, a=self.a * r_m, v_i=(self.v_i - origin) / unit, k=self.k / unit)
