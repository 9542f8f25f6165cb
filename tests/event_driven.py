"""A membrane with synapses from event to event in NumPy, by the matrix exponential: an oracle off the grid."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import expm
from scipy.optimize import brentq, minimize_scalar

POINTS = 8  # in a stretch between events, where the voltage is looked at; its extrema are then found


class Train(NamedTuple):
    """Arrivals in the order of time: when, ms, of which kind, and their weights, mV or pA."""

    time: np.ndarray
    kind: np.ndarray
    weight: np.ndarray


def run(neuron, synapse, tau_syn, train, current, hold, grid):
    """Return the spike times and the voltage at the times of ``grid``, just after what happens then.

    ``neuron`` is a dict of the fields of LIFParams, ``synapse`` "jump", "exponential" or "alpha"; ``current[n]`` is
    held from n hold to (n + 1) hold.
    """
    kinds = 0 if synapse == "jump" else len(tau_syn)
    order = {"jump": 0, "exponential": 1, "alpha": 2}[synapse]
    # y is v - v_rest, then the currents, then for alpha their slopes in excess of the decay, then 1.
    size = 2 + order * kinds
    a = np.zeros((size, size))
    a[0, 0] = -1.0 / neuron["tau_m"]
    for k in range(kinds):
        a[0, 1 + k] = neuron["r_m"] / neuron["tau_m"]
        for n in range(order):
            a[1 + n * kinds + k, 1 + n * kinds + k] = -1.0 / tau_syn[k]
        if order == 2:
            a[1 + k, 1 + kinds + k] = 1.0
    y, spikes, recorded = np.zeros(size), [], []
    y[-1], now, free_from, threshold = 1.0, 0.0, 0.0, neuron["v_th"] - neuron["v_rest"]
    held, n = neuron["v_reset"] - neuron["v_rest"], 0
    grid = list(grid)
    while grid:
        index = min(int(np.floor(now / hold + 1e-9)), len(current) - 1)
        a[0, -1] = neuron["r_m"] / neuron["tau_m"] * current[index]
        stops = [grid[0], (index + 1) * hold]
        stops += [train.time[n]] if n < len(train.time) else []
        stops += [free_from] if now < free_from else []
        until = min(stops)
        if now < free_from:
            y = expm(a * (until - now)) @ y
            y[0] = held
        else:
            found = _crossing(a, y, until - now, threshold)
            if found is not None:
                y = expm(a * found) @ y
                y[0], now = held, now + found
                spikes.append(now)
                free_from = now + neuron["t_ref"]
                continue
            y = expm(a * (until - now)) @ y
        now = until
        while n < len(train.time) and train.time[n] <= now:
            if order == 0:
                y[0] += train.weight[n] * (now >= free_from)
            else:
                scale = 1.0 if order == 1 else np.e / tau_syn[train.kind[n]]
                y[1 + (order - 1) * kinds + train.kind[n]] += scale * train.weight[n]
            n += 1
        if now == grid[0]:
            if y[0] >= threshold and now >= free_from:  # a jump at the very time
                y[0], free_from = held, now + neuron["t_ref"]
                spikes.append(now)
            recorded.append(y[0] + neuron["v_rest"])
            grid.pop(0)
    return np.array(spikes), np.array(recorded)


def _crossing(a, y, length, threshold):
    """Return the first time at which the voltage is at threshold, None without one."""

    def above(t):
        return (expm(a * t) @ y)[0] - threshold

    if y[0] >= threshold or length <= 0.0:
        return 0.0 if y[0] >= threshold and length > 0.0 else None
    step, t, seen = expm(a * (length / POINTS)), np.linspace(0.0, length, POINTS + 1), [y]
    for _ in range(POINTS):
        seen.append(step @ seen[-1])
    high = np.array(seen)[:, 0] - threshold
    for i in range(POINTS):
        if high[i + 1] >= 0.0:
            return brentq(above, t[i], t[i + 1], xtol=1e-15, rtol=1e-15)
        if 0 < i and high[i] >= max(high[i - 1], high[i + 1]) and high[i] > -1.0:
            peak = minimize_scalar(lambda x: -above(x), bounds=(t[i - 1], t[i + 1]), options={"xatol": 1e-10}).x
            if above(peak) >= 0.0:
                return brentq(above, t[i - 1], peak, xtol=1e-15, rtol=1e-15)
    return None
