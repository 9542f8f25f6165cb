"""Units: those that files are written in, what is corrected, and whether numbers in mV and pA can be a neuron's."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxlif.checks import number

_FACTORS = {
    "time": {"s": 1e3, "ms": 1.0, "us": 1e-3},
    "current": {"A": 1e12, "mA": 1e9, "uA": 1e6, "nA": 1e3, "pA": 1.0},
    "voltage": {"V": 1e3, "mV": 1.0, "uV": 1e-3},
    "rate": {"Hz": 1.0, "kHz": 1e3},
}
_SYMBOLS = {name.lower(): name for table in _FACTORS.values() for name in table} | {"sec": "s"}
_WORD = re.compile(r"(milli|micro|nano|pico|)(volt|amp)(?:ere)?s?", re.IGNORECASE)
_PREFIXES = {"milli": "m", "micro": "u", "nano": "n", "pico": "p", "": ""}
Sweeps = int | slice | Sequence[int] | np.ndarray

_LARGEST_MEDIAN = 160.0  # mV, from zero: beyond any membrane, and short of one stored ten times too large
_GAINS = (0.1, 0.05, 0.02, 0.01, 1e-3)  # of amplifiers, inverted, the usual ones
_FARTHEST = 400.0  # mV: beyond a model cell's, and short of an artefact that fills an amplifier's range
_RESTS = (-115.0, -25.0)  # mV: where a neuron that is alive spends its time, most of it below or above
_JUDGED_FROM = 50.0  # ms in all: less shows no rest
_NORMALISED = 2.0  # mV: what stays below is in units of its threshold, and no rest is expected of it
_RESISTANCES = (5e-4, 20.0)  # GΩ: SD of voltage by SD of current, spikes included; of a motoneuron and a granule cell
_UNITS = ((5e-4, "fA", "0.001"), (2e4, "nA", "1000"), (2e7, "µA", "1e6"), (np.inf, "A", "1e12"))
_SHORT = 1.0  # ms to a mean, of which the blocks are made
_BLOCKS = (10.0, 50.0)  # ms: of voltage, of spikes
_PAST = 3  # blocks of its own past
_MAINS_FROM = 100.0  # ms of a sweep in which 50 Hz, 60 Hz and a mean are three things
_LEAST = 120  # blocks: of fewer, a cell that fires all the time leaves too little between spikes to deny its answer
_AT_SPIKE = (0.5, 5.0)  # ms before and after a spike in which an amplifier's transient is no stimulus
EVIDENT = 12.0  # F of two coefficients that chance exceeds once in 160 000 tests
_REACH, _DELAY = 10.0, 0.5  # ms: the longest delay that is looked for, and its grain
_LATE = 2.0  # ms of a delay that filters, electrodes and cables have not
_AROUND_SPIKE = (3.0, 15.0)  # ms before and after one in which its own currents drive the slope
_ANSWERS = 0.2  # share of what the current explains of the slope that a delay must add
_CERTAIN = 50.0  # F of one delay of 41, far beyond chance
_DELAY_BLOCKS = 200_000  # that are looked at: 100 s


def symbol(unit: str) -> str:
    """Return a unit as its symbol, as it is where it is none of ours; case counts for M alone: there is no mega."""
    unit = unit.strip(" \0").replace("\u03bc", "u").replace("\u00b5", "u")  # two code points look like the micro sign
    if word := _WORD.fullmatch(unit):
        unit = _PREFIXES[word[1].lower()] + word[2][0].lower()
    return unit if unit.startswith("M") and len(unit) > 1 else _SYMBOLS.get(unit.lower(), unit)


def is_unit(quantity: str, unit: str) -> bool:
    """Say whether a unit is one of "time", "current", "voltage" or "rate"."""
    return symbol(unit) in _FACTORS[quantity]


def to_library_unit(quantity: str, unit: str) -> float:
    """Return the factor that takes a quantity to ms, pA, mV or Hz; a unit that it does not come in is refused."""
    if not is_unit(quantity, unit):
        raise ValueError(f"{quantity} in {unit!r}: the units known are {', '.join(_FACTORS[quantity])}")
    return _FACTORS[quantity][symbol(unit)]


def voltage_clamp(outputs: str) -> str:
    """Say why a file whose outputs, as listed, are voltages is refused."""
    return (
        f"the output is a voltage ({outputs}): a voltage-clamp recording, where a fit needs an injected current; if it"
        " is current clamp under a wrong unit, say so with `current_unit`"
    )


@dataclass(frozen=True, kw_only=True)
class Corrections:
    r"""What a file says wrongly of its voltage and current: :math:`x \to \mathrm{gain} \cdot x + \mathrm{offset}`.

    A unit stands in place of the one that the file states; a gain (0.1 for what was stored ten times too large) and an
    offset (mV, pA) come after it. A unit of something else, a gain of 0 and what is not finite are refused.
    """

    voltage_unit: str | None = None
    voltage_gain: float = 1.0
    voltage_offset: float = 0.0
    current_unit: str | None = None
    current_gain: float = 1.0
    current_offset: float = 0.0

    def __post_init__(self) -> None:
        for quantity, unit in (("voltage", "mV"), ("current", "pA")):
            if (given := getattr(self, f"{quantity}_unit")) is not None and not is_unit(quantity, given):
                known = ", ".join(_FACTORS[quantity])
                raise ValueError(f"{quantity}_unit = {given!r}: the units known are {known}")
            if number(f"{quantity}_gain", getattr(self, f"{quantity}_gain")) == 0:
                raise ValueError(f"{quantity}_gain = 0: {quantity}_gain must be a number other than 0")
            number(f"{quantity}_offset", getattr(self, f"{quantity}_offset"), unit)

    def unit(self, quantity: str, stated: str) -> str:
        """Return the unit of "voltage" or "current": the one that was given, or else what the file states."""
        given: str | None = getattr(self, f"{quantity}_unit")
        return stated if given is None else given

    def corrected(self, quantity: str, values: np.ndarray) -> np.ndarray:
        """Return values of "voltage" in mV or "current" in pA with gain and offset."""
        gain, offset = getattr(self, f"{quantity}_gain"), getattr(self, f"{quantity}_offset")
        return values if (gain, offset) == (1.0, 0.0) else gain * np.asarray(values, np.float64) + offset

    def given(self) -> dict[str, Any]:
        """Return those that change something, by name."""
        return {name: value for name, value in asdict(self).items() if value != getattr(NO_CORRECTIONS, name)}


NO_CORRECTIONS = Corrections()


class Asked(NamedTuple):
    """What is asked of a file: which current, sweeps and channel, and what to correct in it."""

    current: str | None = None
    sweeps: Sweeps | None = None
    channel: str | None = None
    corrections: Corrections = NO_CORRECTIONS


# --- can these be a neuron's numbers? ---------------------------------------------------------------------


def require_membrane(name: str, voltage: np.ndarray) -> None:
    """Refuse a voltage [sweeps, T] that has a scale which no membrane has in mV, and name the likely factor."""
    spans = [float(voltage.min()), float(np.median(_thinned(voltage))), float(voltage.max())]
    middle, text = spans[1], f"{name} spans {spans[0]:.4g} to {spans[2]:.4g} mV"
    if abs(middle) > _LARGEST_MEDIAN:
        fitting = [f for f in _GAINS if _is_membrane(*(f * x for x in spans)) and -100.0 < f * middle < -30.0]
        factor = min(fitting, key=lambda f: abs(f * middle + 65.0), default=None)
        likely = f"; it looks {1 / factor:.0f} times too large (`voltage_gain` {factor:g})" if factor else ""
        raise ValueError(f"{text} with a median of {middle:.4g} mV, which no membrane has{likely}")
    for factor, where in ((1000, "which is physiological in volts"), (100, "which looks 100 times too small")):
        if _is_membrane(*(factor * x for x in spans)):
            raise ValueError(f"{text}, {where}: multiply it by {factor} (`voltage_gain`)")


def _thinned(voltage: np.ndarray) -> np.ndarray:
    """Return samples enough for a quantile."""
    return voltage[:, :: max(1, voltage.size // 100_000)]


def _is_membrane(low: float, middle: float, high: float) -> bool:
    return bool(-200.0 < low and high < 100.0 and -150.0 < middle < -20.0)


def scale_notes(current: np.ndarray, voltage: np.ndarray, dt: float) -> Iterator[str]:
    """Say what can be a recording [sweeps, T] but hardly is: a rest of no neuron, a current of another unit."""
    if voltage.size * dt >= _JUDGED_FROM:
        yield from _rest(voltage)
    farthest = float(np.abs(voltage).max())
    if farthest > _FARTHEST:
        count = int((np.abs(voltage) > _FARTHEST).sum())
        yield f"the voltage reaches {farthest:.4g} mV from zero in {count} samples: artefacts? fitted as they are"
    spread = float(np.std(current))
    resistance = float(np.std(voltage)) / spread if spread > 0 else 0.0
    # Noise in the channel of the current implies a resistance too, of nothing.
    suspect = resistance > 0 and not _RESISTANCES[0] < resistance < _RESISTANCES[1]
    if suspect and EVIDENT < evidence(current, voltage, dt) < np.inf:
        unit, factor = next((u, f) for most, u, f in _UNITS if resistance < most)
        yield (
            f"an SD of {np.std(voltage):.3g} mV for a current of SD {spread:.3g} pA implies an input resistance of"
            f" {resistance:.3g} GΩ ({_RESISTANCES[0]:g} to {_RESISTANCES[1]:g} GΩ are expected):"
            f" is the current in {unit}? multiply it by {factor} (`current_gain`)"
        )


def _rest(voltage: np.ndarray) -> Iterator[str]:
    low, high = (float(q) for q in np.quantile(_thinned(voltage), (0.1, 0.9)))
    if np.abs(voltage).max() < _NORMALISED or (low < _RESTS[1] and high > _RESTS[0]):
        return
    side, value = ("above", low) if low >= _RESTS[1] else ("below", high)
    tenfold = side == "above" and _is_membrane(*(10.0 * x for x in (voltage.min(), low, voltage.max())))
    likely = "is its scale wrong (`voltage_gain`), its zero (`voltage_offset`), or is it a model cell?"
    likely = "it looks 10 times too small (`voltage_gain` 10)" if tenfold else likely
    yield f"the voltage lies {side} {value:.3g} mV for 90 % of the time, where no neuron rests: {likely}"


def evidence(current: np.ndarray, voltage: np.ndarray, dt: float, spikes: np.ndarray | None = None) -> float:
    r"""Return the evidence that the cell answers to the current: an F statistic, infinite where it is too short.

    Over blocks k of time away from spikes, :math:`V_k = a + \sum_{j=1}^3 b_j V_{k-j} + c_0 I_k + c_1 I_{k-1} +
    \varepsilon`: F says how much less variance :math:`\varepsilon` has with the current than without. The voltage's own
    past keeps what has another origin from counting. The larger of two counts: that of blocks of 10 ms, in which a
    membrane answers and what couples from one channel into the other does not, and that of the numbers of spikes in
    50 ms. The mains, which couple into both, are taken out.
    """
    known = np.zeros(current.shape, bool) if spikes is None else spikes
    away, short = away_from(known, *_AT_SPIKE, dt), max(1, round(_SHORT / dt))
    x, y = (_means(np.where(away, part, np.nan), short) for part in (current, voltage))
    if x.shape[1] * short * dt >= _MAINS_FROM and short * dt <= 5.0:
        x, y = (part - mains(part, (50.0, 60.0), short * dt) for part in (x, y))
    # A drifting seal makes a straight line of a current, sweep after sweep. One ramp over all of a recording is its own
    # past's continuation, as is the voltage's answer to it.
    time, told = np.linspace(-1.0, 1.0, x.size).reshape(x.shape), np.isfinite(x)
    trend = np.polyval(np.polyfit(time[told], x[told], 1), time) if told.sum() > 1 else 0.0 * time
    ramp = np.var(trend) > 0.9 * np.var(current)
    x, pasts = (x, (1, _PAST)) if ramp else (x - trend, (_PAST,))
    lengths = [max(1, round(block / (short * dt))) for block in _BLOCKS]
    pairs = zip(lengths, (y, _means(known, short)), strict=True)
    found = [_f(_means(x, n), _means(part, n), past) for n, part in pairs for past in pasts]
    return max((f for f in found if np.isfinite(f)), default=np.inf)


def delay(current: np.ndarray, voltage: np.ndarray, dt: float, spikes: np.ndarray) -> float:
    r"""Return by how many ms the voltage [sweeps, T] comes after the current that drives it; 0 where none is evident.

    Of blocks k of 0.5 ms away from spikes, :math:`V_{k+1} - V_k = a + b V_k + c \bar I_{k-d} + e \Delta I_{k-d}`, I the
    mean and :math:`\Delta I` the difference of two: a membrane's slope is largest at once, an electrode's drop too.
    """
    length = max(1, round(_DELAY / dt))
    reach, least = round(_REACH / (length * dt)), max(2, round(_LATE / (length * dt)))
    known = np.where(away_from(spikes, *_AROUND_SPIKE, dt), voltage, np.nan)
    few = np.s_[: max(1, _DELAY_BLOCKS // max(1, current.shape[1] // length)), : _DELAY_BLOCKS * length]
    x, y = (_means(part[few], length) for part in (current, known))
    slope, mean, change = np.diff(y, axis=1), 0.5 * (x[:, 1:] + x[:, :-1]), np.diff(x, axis=1)
    told = np.isfinite(slope)
    told[:, :reach] = told[:, max(0, told.shape[1] - reach) :] = False
    if (count := int(told.sum())) < _LEAST:
        return 0.0
    own = np.stack([slope[told], y[:, :-1][told]])
    own -= own.mean(axis=1, keepdims=True)
    shifts = np.arange(-reach, reach + 1)
    left = [_left(own, np.stack([np.roll(part, shift, axis=1)[told] for part in (mean, change)])) for shift in shifts]
    best, now, without = int(np.argmin(left)), left[reach], _left(own, own[:0])
    certain = now - left[best] > _CERTAIN * max(left[best], np.finfo(float).tiny) / count
    answers = now - left[best] > _ANSWERS * (without - left[best])
    return float(shifts[best]) * length * dt if certain and answers and abs(shifts[best]) >= least else 0.0


def _left(own: np.ndarray, others: np.ndarray) -> float:
    """Return the squares that are left of the first row, [2, n], without the second and without others, [m, n]."""
    design = np.concatenate([own[1:], others - others.mean(axis=1, keepdims=True)])
    size = np.sqrt(np.sum(design**2, axis=1))
    design = design / np.where(size > 0, size, 1.0)[:, None]
    products, with_first = design @ design.T, design @ own[0]
    return float(own[0] @ own[0] - with_first @ np.linalg.pinv(products, 1e-12, hermitian=True) @ with_first)


def away_from(spikes: np.ndarray, before: float, after: float, dt: float) -> np.ndarray:
    """Mark the samples [sweeps, T] that no spike comes to within these times, ms."""
    mask, (before, after) = np.ones(spikes.shape, bool), (round(before / dt), round(after / dt))
    for sweep, step in zip(*np.nonzero(spikes), strict=True):
        mask[sweep, max(0, step - before) : step + after] = False
    return mask


def mains(x: np.ndarray, frequencies: Sequence[float] | np.ndarray, dt: float) -> np.ndarray:
    """Return the sinusoids of some frequencies, Hz, that fit each sweep [sweeps, T] best; NaN are gaps."""
    phase = 2e-3 * np.pi * dt * np.outer(np.arange(x.shape[1]), np.asarray(frequencies))
    waves = np.concatenate([np.sin(phase), np.cos(phase), np.ones((len(phase), 1))], axis=1)
    known = np.isfinite(x)
    if known.all():
        return np.asarray((waves[:, :-1] @ np.linalg.lstsq(waves, x.T, rcond=None)[0][:-1]).T)
    sizes = [np.linalg.lstsq(waves[at], row[at], rcond=None)[0] for row, at in zip(x, known, strict=True)]
    return np.asarray(np.stack(sizes)[:, :-1] @ waves[:, :-1].T)


def _means(x: np.ndarray, length: int) -> np.ndarray:
    """Return means of what is known of each block, NaN where nothing is."""
    whole = x.shape[1] // length * length
    blocks = x[:, :whole].reshape(len(x), -1, length)
    known = np.isfinite(blocks)
    count = known.sum(axis=-1)
    return np.where(count > 0, np.where(known, blocks, 0.0).sum(axis=-1) / np.maximum(count, 1), np.nan)


def _f(x: np.ndarray, y: np.ndarray, past: int) -> float:
    end = y.shape[1]
    columns = [y[:, past - j : end - j] for j in range(past + 1)] + [x[:, past - j : end - j] for j in (0, 1)]
    parts = np.stack([column.ravel() for column in columns])
    after, *others = parts[:, np.isfinite(parts).all(axis=0)]
    if after.size < _LEAST:
        return np.inf  # too few to deny it
    design = np.column_stack([np.ones_like(after), *others])
    errors = [_residual(design[:, : 1 + past], after), _residual(design, after)]
    floor = 1e-18 * float(np.sum((after - after.mean()) ** 2)) + np.finfo(float).tiny
    return float(0.5 * (errors[0] - errors[1]) / max(errors[1] / (after.size - design.shape[1]), floor))


def _residual(design: np.ndarray, target: np.ndarray) -> float:
    largest = np.abs(design).max(axis=0)
    design = design / np.where(largest > 0, largest, 1.0)
    return float(np.sum((target - design @ np.linalg.lstsq(design, target, rcond=1e-12)[0]) ** 2))
