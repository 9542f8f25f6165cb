"""The potentials at which ions are in balance across a membrane."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Real

from jaxlif import checks

# R/F, mV per kelvin; 0 °C in kelvin.
_GAS_OVER_FARADAY = 8.31446261815324 / 96485.33212331001 * 1000.0
_ZERO_CELSIUS = 273.15


def nernst(
    inside: Real[ArrayLike, "..."], outside: Real[ArrayLike, "..."], valence: Any = 1, temperature: Any = 37.0
) -> Float[Array, "..."]:
    r"""Find the reversal potential of one ion: :math:`E = \frac{RT}{zF} \ln\frac{[X]_{out}}{[X]_{in}}`.

    Args:
        inside: concentration in the cell, mM, of any shape.
        outside: concentration around it, mM.
        valence: charge z of the ion with its sign, a whole number other than 0, of one shape with the others.
        temperature: °C.

    Returns:
        The potential inside against outside, mV.

    Raises:
        ValueError: for a concentration of 0 mM or less, a valence that is 0 or broken, a temperature below -273.15 °C.

    Example:
        >>> inside, outside = jnp.array([140.0, 12.0, 10.0]), jnp.array([5.0, 145.0, 110.0])  # K+, Na+, Cl- of a mammal
        >>> [round(float(e), 1) for e in nernst(inside, outside, jnp.array([1, 1, -1]))]
        [-89.1, 66.6, -64.1]

    Source: Nernst 1889, doi:10.1515/zpch-1889-0412; Hille 2001, Ion Channels of Excitable Membranes, chapter 1.
    """
    charge = checks.numbers("valence", valence)
    if checks.concrete(charge):
        ok = (np.asarray(charge) != 0) & (np.asarray(charge) % 1 == 0)
        checks.require(ok, "valence", charge, "", "valence must be a whole number other than 0")
    ratio = jnp.log(_concentration("outside", outside) / _concentration("inside", inside))
    return jnp.asarray(_thermal_voltage(temperature) / jnp.asarray(charge, ratio.dtype) * ratio)


def goldman(
    permeability: Real[ArrayLike, " K"],
    inside: Real[ArrayLike, " K"],
    outside: Real[ArrayLike, " K"],
    valence: Any,
    temperature: Any = 37.0,
) -> Float[Array, ""]:
    r"""Find the potential, mV, at which K monovalent ions together carry no current (Goldman, Hodgkin and Katz).

    :math:`E = \frac{RT}{F} \ln \frac{\sum P_c [c]_{out} + \sum P_a [a]_{in}}{\sum P_c [c]_{in} + \sum P_a [a]_{out}}`,
    with cations c and anions a. One ion alone has its Nernst potential.

    Args:
        permeability: of each ion, in any one unit, 0 or more, not all 0.
        inside: concentrations in the cell, mM.
        outside: concentrations around it, mM.
        valence: 1 or -1 for each ion; of others there is no such formula.
        temperature: °C.

    Returns:
        The potential inside against outside, mV.

    Raises:
        ValueError: for what breaks a rule, and for arrays whose lengths differ.

    Example:
        >>> ions = {"inside": jnp.array([400.0, 50.0, 40.0]), "outside": jnp.array([20.0, 440.0, 560.0])}
        >>> squid = goldman(jnp.array([1.0, 0.04, 0.45]), **ions, valence=[1, 1, -1], temperature=20.0)  # K+, Na+, Cl-
        >>> round(float(squid), 1)
        -62.3

    Source: Hodgkin & Katz 1949, doi:10.1113/jphysiol.1949.sp004310.
    """
    weight = jnp.asarray(checks.numbers("permeability", permeability))
    charge = checks.numbers("valence", valence)
    inside, outside = _concentration("inside", inside), _concentration("outside", outside)
    checks.require_same_shape(permeability=weight, inside=inside, outside=outside, valence=charge)
    if checks.concrete(charge):
        checks.require(np.isin(charge, (-1, 1)), "valence", charge, "", "valence must be 1 or -1")
    if checks.concrete(weight):
        rule = "permeability must be 0 or more, and above 0 for one ion at least"
        checks.require((weight >= 0) & (jnp.sum(weight) > 0), "permeability", weight, "", rule)
    cation = jnp.asarray(charge) > 0
    there, here = (jnp.sum(weight * jnp.where(cation, *sides)) for sides in ((outside, inside), (inside, outside)))
    return jnp.asarray(_thermal_voltage(temperature) * jnp.log(there / here))


def _concentration(side: str, value: Any) -> Array:
    return jnp.asarray(checks.require_positive(side, checks.numbers(side, value, "mM"), "mM"))


def _thermal_voltage(temperature: Any) -> Any:
    """Return RT/F, mV."""
    warm = checks.numbers("temperature", temperature, "°C")
    if checks.concrete(warm):
        ok = np.asarray(warm) > -_ZERO_CELSIUS
        checks.require(ok, "temperature", warm, "°C", "temperature must be above -273.15 °C")
    return _GAS_OVER_FARADAY * (warm + _ZERO_CELSIUS)
