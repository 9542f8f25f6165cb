"""Read the GLIF models that the Allen Institute publishes for its cells."""

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from jaxlif.checks import require_finite, require_not_negative, require_positive
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.neurons.lif import LIFParams


def from_allen(
    neuron_config: Mapping[str, Any], *, forward_euler: bool = False
) -> tuple[LIFParams | AdaptiveLIFParams, tuple[str, ...]]:
    r"""Read the ``neuron_config`` of an Allen GLIF model; what a spike does at its end is moved to its start.

    The file is in SI units, and ``coeffs`` multiply it. After a spike AllenSDK cuts out :math:`t_{ref}` =
    ``spike_cut_length`` dt and only then adds the amplitudes; here they are added at the spike and decay meanwhile:

    .. math::
        \eta_k = -A_k\, e^{t_{ref}/\tau_k}, \qquad
        \gamma = a_{spike}\, e^{b_{spike} (t_{ref} - dt)}, \qquad \tau_\gamma = 1/b_{spike}

    An Allen current is positive when it depolarises, an ``eta`` when it flows outward. On the file's own dt that is
    exact: the same spikes, but that AllenSDK asks for v > threshold and labels a spike with the start of its step.

    Args:
        neuron_config: the JSON object, GLIF1 to GLIF5, as its dict.
        forward_euler: AllenSDK steps the voltage by forward Euler, jaxlif exactly. True makes ``tau_m`` the one whose
            exact step is that Euler step, :math:`-dt/\ln(1 - dt/RC)`; it is right for a cell with the file's dt.
            False gives :math:`RC`, for any dt.

    Returns:
        :class:`LIFParams` of a GLIF1, :class:`AdaptiveLIFParams` where there are after-spike currents or a threshold
        that spikes move; and notes in plain words on what the parameters do not hold.

    Raises:
        ValueError: for a field that is missing or bad, and for what the model does not have: a reset that depends on
            the voltage before the spike ("v_before" with a slope; published GLIF2, 4 and 5 have one), a threshold
            that follows the voltage (published GLIF5), and currents that a spike scales (``r`` other than 1).

    Example:
        >>> method = lambda name, **params: {"name": name, "params": params}
        >>> config = {
        ...     "El": 0.0, "El_reference": -0.07, "R_input": 2e8, "C": 1e-10, "th_inf": 0.02, "dt": 5e-5,
        ...     "spike_cut_length": 40, "asc_tau_array": [0.1], "asc_amp_array": [-1e-11],
        ...     "voltage_dynamics_method": method("linear_forward_euler"), "voltage_reset_method": method("zero"),
        ...     "threshold_dynamics_method": method("inf"), "threshold_reset_method": method("inf"),
        ...     "AScurrent_dynamics_method": method("exp"), "AScurrent_reset_method": method("sum", r=[1.0]),
        ... }
        >>> params, notes = from_allen(config)
        >>> round(params.tau_m, 6), round(params.v_th, 6), round(params.t_ref, 6), round(params.eta[0], 6)
        (20.0, -50.0, 2.0, 10.202013)

    Source: Teeter et al. 2018, doi:10.1038/s41467-017-02717-4; AllenSDK 2.16, allensdk.model.glif.
    """
    config = _object("neuron_config", neuron_config)
    membrane = _membrane(config, forward_euler)
    currents, movements = _currents(config), _movements(config)
    notes = _notes(config, forward_euler)
    if not currents and not movements:
        plain = LIFParams(**membrane)
        plain.check()
        return plain, notes
    params = AdaptiveLIFParams(**membrane, **currents, **movements)
    params.check()
    return params, notes


def _membrane(config: dict[str, Any], forward_euler: bool) -> dict[str, Any]:
    reference = 1e3 * _number(config, "El_reference")
    v_rest = reference + 1e3 * _number(config, "El")
    r_m = 1e-9 * _number(config, "R_input") / _coefficient(config, "G")
    tau_m = r_m * 1e12 * _number(config, "C") * _coefficient(config, "C")
    require_positive("R_input", r_m, "GΩ")
    require_positive("C", tau_m / r_m, "pF")
    dt, t_ref = _times(config)
    return {
        "tau_m": _euler(tau_m, dt) if forward_euler and _stepping(config) == "linear_forward_euler" else tau_m,
        "r_m": r_m,
        "v_rest": v_rest,
        "v_th": reference + 1e3 * _number(config, "th_inf") * _coefficient(config, "th_inf"),
        "v_reset": reference + _reset(config),
        "t_ref": t_ref,
    }


def _stepping(config: dict[str, Any]) -> str:
    name, _ = _method(config, "voltage_dynamics_method", ("linear_forward_euler", "linear_exact"))
    return name


def _euler(tau: float, dt: float) -> float:
    if not dt < tau:
        raise ValueError(f"dt = {dt:g} ms: forward Euler must have a step below RC = {tau:g} ms")
    return -dt / math.log1p(-dt / tau)


def _times(config: dict[str, Any]) -> tuple[float, float]:
    """Return dt and the refractory period, ms."""
    dt, cut = 1e3 * _number(config, "dt"), _number(config, "spike_cut_length")
    require_positive("dt", dt, "ms")
    require_not_negative("spike_cut_length", cut, "steps")
    return dt, math.floor(cut) * dt


def _reset(config: dict[str, Any]) -> float:
    """Return the voltage after a spike, mV from El_reference."""
    name, params = _method(config, "voltage_reset_method", ("zero", "v_before"))
    if name == "zero":
        return 0.0
    slope = _number(params, "a", "voltage_reset_method.")
    if slope != 0.0:
        rule = "the voltage after a spike must not depend on that before it"
        raise ValueError(f"voltage_reset_method.a = {slope:g}: {rule}, only a slope of 0 can be read")
    return 1e3 * _number(params, "b", "voltage_reset_method.")


def _currents(config: dict[str, Any]) -> dict[str, Any]:
    """Return eta and tau_eta, or nothing: a file of a GLIF1 holds amplitudes too, which it does not use."""
    name, _ = _method(config, "AScurrent_dynamics_method", ("exp", "none"))
    if name == "none":
        return {}
    _, params = _method(config, "AScurrent_reset_method", ("sum",))
    for i, r in enumerate(_list(params, "r", "AScurrent_reset_method.")):
        if r != 1.0:
            rule = "a spike must leave the earlier currents as they are, r must be 1"
            raise ValueError(f"AScurrent_reset_method.r.{i} = {r:g}: {rule}")
    amplitudes = [1e12 * amplitude for amplitude in _list(config, "asc_amp_array")]
    scales = _list(_object("coeffs", config.get("coeffs")), "asc_amp_array", "coeffs.", default=[1.0] * len(amplitudes))
    taus = [1e3 * tau for tau in _list(config, "asc_tau_array")]
    if not len(amplitudes) == len(taus) == len(scales):
        raise ValueError(
            f"asc_amp_array has {len(amplitudes)} terms, asc_tau_array {len(taus)} and coeffs.asc_amp_array "
            f"{len(scales)}: they come together"
        )
    _, t_ref = _times(config)
    for i, tau in enumerate(taus):
        require_positive(f"asc_tau_array.{i}", tau, "ms")
    terms = zip(amplitudes, scales, taus, strict=True)
    return {"eta": tuple(-a * c * _growth("asc_tau_array", t_ref / tau) for a, c, tau in terms), "tau_eta": tuple(taus)}


def _movements(config: dict[str, Any]) -> dict[str, Any]:
    """Return gamma and tau_gamma, or nothing for a threshold that stays."""
    moving = ("spike_component", "three_components_exact")
    name, params = _method(config, "threshold_dynamics_method", ("inf", *moving))
    if name == "inf":
        _method(config, "threshold_reset_method", ("inf",))
        return {}
    _, reset = _method(config, "threshold_reset_method", ("three_components",))
    if name == "three_components_exact" and _number(params, "a_voltage", "threshold_dynamics_method.") != 0.0:
        rule = "AllenSDK stops it during a spike, which jaxlif's coupling does not, a_voltage must be 0"
        raise ValueError(f"threshold_dynamics_method.a_voltage = {params['a_voltage']:g} 1/s: {rule}")
    rate = _number(params, "b_spike", "threshold_dynamics_method.")
    after = _number(reset, "b_spike", "threshold_reset_method.")
    if rate != after:
        raise ValueError(
            f"threshold_reset_method.b_spike = {after:g} 1/s: it must be that of the dynamics, {rate:g} 1/s"
        )
    require_positive("threshold_dynamics_method.b_spike", rate, "1/s")
    dt, t_ref = _times(config)
    jump = 1e3 * _number(reset, "a_spike", "threshold_reset_method.") * _growth("b_spike", 1e-3 * rate * (t_ref - dt))
    return {"gamma": (jump,), "tau_gamma": (1e3 / rate,)}


def _notes(config: dict[str, Any], forward_euler: bool) -> tuple[str, ...]:
    dt, _ = _times(config)
    notes = [f"AllenSDK's spike times are {dt:g} ms earlier: it labels a spike with the start of its step"]
    if _stepping(config) == "linear_forward_euler":
        exact = f"tau_m is RC; AllenSDK's forward Euler at {dt:g} ms is met by forward_euler=True"
        notes.append(
            f"tau_m holds AllenSDK's forward Euler: use a cell with dt = {dt:g} ms" if forward_euler else exact
        )
    for name, rest, unit in (("init_voltage", config["El"], "V"), ("init_AScurrents", 0.0, "A")):
        start = config.get(name, rest)
        if np.any(np.asarray(start) != rest):
            notes.append(f"{name} = {start} {unit} is not a parameter: set it in the initial state")
    if config.get("th_adapt") is not None:
        notes.append(f"th_adapt = {config['th_adapt']} is not used by AllenSDK, nor here")
    return tuple(notes)


def _method(config: dict[str, Any], field: str, known: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """Return the name and the parameters of a method, or raise ValueError for one that is not known."""
    method = config.get(field)
    if not isinstance(method, Mapping) or "name" not in method:
        raise ValueError(f'{field} is missing: it must be {{"name": ..., "params": {{...}}}}')
    if method["name"] not in known:
        raise ValueError(f"{field} = {method['name']!r}: it must be {' or '.join(map(repr, known))}")
    return method["name"], _object(f"{field}.params", method.get("params"))


def _object(field: str, value: Any) -> dict[str, Any]:
    """Return a JSON object, empty where the file has null or nothing."""
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"{field} = {str(value)[:40]}: it must be an object with names")
    return dict(value or {})


def _growth(field: str, exponent: float) -> float:
    """Return what a spike's effect has at its start, from what it has when the refractory period ends."""
    if exponent > 700.0:
        raise ValueError(f"{field}: over the refractory period it changes by exp({exponent:.4g}), beyond all numbers")
    return math.exp(exponent)


def _number(config: Mapping[str, Any], field: str, where: str = "") -> float:
    value = config.get(field)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{where}{field} = {value!r}: it must be a number")
    try:
        number = float(value)
    except OverflowError as error:
        raise ValueError(f"{where}{field} has {len(str(value))} digits: it must be finite") from error
    require_finite(f"{where}{field}", number, "")
    return number


def _list(config: Mapping[str, Any], field: str, where: str = "", default: list[float] | None = None) -> list[float]:
    values = config.get(field, default)
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise ValueError(f"{where}{field} = {values!r}: it must be a list of numbers")
    return [_number({field: value}, field, where) for value in values]  # type: ignore[union-attr]


def _coefficient(config: dict[str, Any], name: str) -> float:
    """Return what multiplies a parameter, 1 where the file does not say."""
    value = _number({"coeffs." + name: _object("coeffs", config.get("coeffs")).get(name, 1.0)}, "coeffs." + name)
    require_positive(f"coeffs.{name}", value, "")
    return value
