"""Mains hum in a recorded current: found at 50 or 60 Hz, and taken away where steps are looked for under it."""

from typing import NamedTuple

import numpy as np

from jaxlif.recordings.recording import Recording

MAINS = (50.0, 60.0)  # Hz
HARMONICS = 3
ENOUGH = 8, 2000.0  # sweeps, and ms of each, that are looked at
CHUNK = 1000.0  # ms: mains drift by some hundredths of a hertz, and their phase with them
STANDS_OUT = 4.0  # times the amplitude at frequencies beside it from which a line is one
OUTLIER = 2.0  # standard deviations beyond which a sample is a transient or the edge of a step


class Hum(NamedTuple):
    """The frequency of a hum, Hz, and the amplitude of its first harmonic, pA."""

    frequency: float
    amplitude: float


def mains_hum(recording: Recording) -> Hum | None:
    """Return the mains hum of a recorded current; None where no line stands out at 50 or 60 Hz.

    Args:
        recording: its current, in sweeps of 100 ms or more.

    Example:
        >>> rng, t = np.random.default_rng(0), 1e-4 * np.arange(10000)
        >>> current = rng.standard_normal(t.size) + 6.0 * np.sin(2.0 * np.pi * 50.0 * t)
        >>> found = mains_hum(Recording(current=current, dt=0.1))
        >>> found.frequency, round(found.amplitude, 1)
        (50.0, 6.0)
    """
    if recording.duration < 100.0:
        return None
    sweeps, samples = ENOUGH[0], round(ENOUGH[1] / recording.dt)
    found = [Hum(f, _line(recording.current[:sweeps, :samples], f, recording.dt)) for f in MAINS]
    loudest = max(found, key=lambda hum: hum.amplitude)
    return loudest if loudest.amplitude > 0.0 else None


def without_hum(recording: Recording, hum: Hum) -> np.ndarray:
    """Return the current [sweeps, T] without a hum and its harmonics, each second of each sweep by least squares.

    Args:
        recording: its current.
        hum: from :func:`mains_hum`.
    """
    count = max(1, round(recording.duration / CHUNK))
    parts = np.array_split(_fluctuation(recording.current, hum.frequency, recording.dt), count, axis=1)
    return recording.current - np.concatenate([_fitted(part, hum.frequency, recording.dt) for part in parts], axis=1)


def hum_notes(recording: Recording) -> tuple[str, ...]:
    """Say that a recorded current hums.

    Args:
        recording: its current.
    """
    hum = mains_hum(recording)
    # A line that is a quarter of all there is, or more, is the stimulus.
    if hum is None or hum.amplitude > 0.25 * np.ptp(recording.current):
        return ()
    return (
        f"the current has a hum of {hum.amplitude:.2g} pA at {hum.frequency:g} Hz: steps are looked for without it,"
        " unless it is more than a tenth of them, and the membrane is fitted with or without it, whichever the voltage"
        " follows; the model is run with it",
    )


def _line(current: np.ndarray, frequency: float, dt: float) -> float:
    """Return the amplitude at a frequency, pA, or 0 where it does not stand out from those beside it."""
    x = _fluctuation(current, frequency, dt)
    window, times = np.hanning(x.shape[1]), dt * np.arange(x.shape[1])
    beside = np.array([-4.0, -3.0, 3.0, 4.0]) * max(2.0, 1000.0 / (dt * x.shape[1]))
    waves = np.exp(-2e-3j * np.pi * np.outer(frequency + np.append(0.0, beside), times))
    amplitudes = np.median(np.abs(2.0 * (window * x) @ waves.T / window.sum()), axis=0)
    return float(amplitudes[0]) if amplitudes[0] > STANDS_OUT * amplitudes[1:].max() else 0.0


def _fluctuation(current: np.ndarray, frequency: float, dt: float) -> np.ndarray:
    """Return a current [sweeps, T] without what is slower than a period, and with its outliers cut."""
    length = max(2, round(1000.0 / frequency / dt))
    blocks = current.shape[1] // length
    medians = np.median(current[:, : blocks * length].reshape(len(current), blocks, length), axis=2)
    centres, samples = length * (np.arange(blocks) + 0.5) - 0.5, np.arange(current.shape[1])
    x = np.stack([sweep - np.interp(samples, centres, m) for sweep, m in zip(current, medians, strict=True)])
    limit = OUTLIER * np.median(np.abs(x)) / 0.6745
    return np.clip(x, -limit, limit)


def _fitted(x: np.ndarray, frequency: float, dt: float) -> np.ndarray:
    phase = 2e-3 * np.pi * frequency * dt * np.arange(x.shape[1])
    waves = np.stack([f(k * phase) for k in range(1, HARMONICS + 1) for f in (np.sin, np.cos)], axis=1)
    return (waves @ np.linalg.lstsq(waves, x.T, rcond=None)[0]).T
