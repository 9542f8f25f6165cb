"""What parameters are called in words, and their units."""

STANDARD_NAMES = {
    "tau_m": ("membrane time constant", "ms"),
    "r_m": ("membrane resistance", "GΩ"),
    "v_rest": ("resting potential", "mV"),
    "v_th": ("spike threshold", "mV"),
    "v_reset": ("reset potential", "mV"),
    "t_ref": ("absolute refractory period", "ms"),
    "eta": ("jump of spike-triggered current", "pA"),
    "tau_eta": ("time constant of spike-triggered current", "ms"),
    "gamma": ("jump of threshold at a spike", "mV"),
    "tau_gamma": ("time constant of threshold jump", "ms"),
    "a": ("subthreshold adaptation", "nS"),
    "tau_a": ("time constant of subthreshold adaptation", "ms"),
    "coupling.b": ("coupling of threshold to voltage", ""),
    "coupling.tau": ("time constant of that coupling", "ms"),
    "coupling.v_i": ("voltage from which the threshold follows", "mV"),
    "coupling.k": ("width of that bend", "mV"),
    "delta_v": ("width of escape noise", "mV"),
    "lambda_0": ("escape rate at threshold", "1/ms"),
}


def standard_name(parameter: str) -> tuple[str, str]:
    """Return what a parameter is called in words, and its unit.

    Example:
        >>> standard_name("eta.0")
        ('jump of spike-triggered current 1', 'pA')
    """
    if parameter in STANDARD_NAMES:
        return STANDARD_NAMES[parameter]
    base, _, index = parameter.rpartition(".")
    words, unit = STANDARD_NAMES[base]
    return f"{words} {int(index) + 1}", unit
