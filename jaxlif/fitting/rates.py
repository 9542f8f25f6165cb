"""From a table of firing rates to a neuron."""

import jax
import numpy as np

from jaxlif.checks import choice, whole
from jaxlif.fitting.bounds import coordinates
from jaxlif.fitting.fi_curve import blocked, checked_rates, curve_errors, fit_fi_curve, poor_curve, rising_branch
from jaxlif.fitting.notes import at_bounds, unlikely_threshold
from jaxlif.fitting.recordings import BOUNDS
from jaxlif.fitting.result import RecordingFit
from jaxlif.fitting.step_protocol import spontaneous
from jaxlif.neurons.lif import LIFParams
from jaxlif.recordings import SpikeRule


def fit_rates(
    currents: np.ndarray,
    rates: np.ndarray,
    membrane: LIFParams,
    *,
    free_tau_m: bool = False,
    name: str = "",
    sha256: str = "",
    seed: int = 0,
) -> RecordingFit:
    """Fit a neuron to target firing rates, in double precision.

    Rates determine the rheobase, the refractory period and the curve's shape; r_m and v_rest are taken from the
    membrane given, tau_m too unless it is freed.

    Args:
        currents: [K], pA.
        rates: [K], Hz.
        membrane: tau_m, r_m and v_rest.
        free_tau_m: fit tau_m as well.
        name: where the rates come from.
        sha256: checksum of that file.
        seed: of the random starts.

    Returns:
        A :class:`RecordingFit` with the protocol "rates".

    Raises:
        ValueError: for shapes that differ, fewer than three currents, or rates that are not finite, negative or all 0.

    Example:
        >>> from jaxlif import theory
        >>> currents = np.linspace(0.0, 600.0, 13)
        >>> result = fit_rates(currents, np.asarray(theory.firing_rate(LIFParams(t_ref=2.0), currents)), LIFParams())
        >>> round(result.params.t_ref, 4)
        2.0
    """
    within = {name: BOUNDS[name] for name in ("tau_m", "r_m", "v_rest")}
    coordinates(membrane, within)
    choice("free_tau_m", free_tau_m, (False, True))
    seed = whole("seed", seed)
    currents, rates = checked_rates(currents, rates)
    order = np.argsort(currents, kind="stable")
    currents, rates = currents[order], rates[order]
    rising = slice(rising_branch(currents, rates))
    if len(set(currents[rising].tolist())) < 3:
        raise ValueError(f"{blocked(currents, rates)[0]}, and fewer than the 3 that a fit needs come before them")
    with jax.enable_x64(True):
        free, lowest = BOUNDS["tau_m"] if free_tau_m else None, {"v_reset": (BOUNDS["v_reset"][0], np.inf)}
        fitted = fit_fi_curve(membrane, currents[rising], rates[rising], bounds=lowest, tau_m_bounds=free, seed=seed)
    curve, limits = fitted.table(currents[rising], rates[rising]), {n: BOUNDS[n] for n in ("v_th", "v_reset", "t_ref")}
    return RecordingFit(
        model="lif",
        params=fitted.params,
        scores={"f_i": curve_errors(curve)},
        bounds=limits | {"tau_m": BOUNDS["tau_m"]} if free_tau_m else limits,
        train=(0.0, 0.0),
        protocol="rates",
        spike_rule=SpikeRule(),
        spike_cut=(0.0, 0.0),
        data={"name": name, "sha256": sha256},
        seed=seed,
        warnings=("r_m and v_rest were given, not fitted: firing rates do not determine them",)
        + blocked(currents, rates)
        + poor_curve(curve)
        + spontaneous(fitted.params)
        + at_bounds(fitted.params, limits)
        + unlikely_threshold(fitted.params, currents),
        curve=curve,
    )
