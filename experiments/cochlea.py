"""A small cochlea: sound becomes the drive of auditory nerve fibres, compressed envelopes of bands.

Per channel: an all-pole gammatone filter of order 4 around its frequency, evenly spaced on the ERB scale, with gain 1
there; half-wave rectification; a low-pass, which leaves the envelope a; the mean over each step; and a logarithm.

Source: Katsiamis, Drakakis & Lyon 2007, doi:10.1155/2007/63685 (all-pole gammatone filters); Glasberg & Moore 1990,
doi:10.1016/0378-5955(90)90170-T (the bandwidth of hearing).
"""

import numpy as np
from scipy.signal import lfilter, sosfilt


def erb(frequency):
    """Return the equivalent rectangular bandwidth of the auditory filter at a frequency, both Hz."""
    return 24.7 * (4.37e-3 * np.asarray(frequency, float) + 1.0)


def erb_space(low: float, high: float, num: int) -> np.ndarray:
    """Space frequencies, Hz, evenly on the scale of hearing, where ln(1 + 4.37 f / 1000) is uniform."""
    return np.expm1(np.linspace(np.log1p(4.37e-3 * low), np.log1p(4.37e-3 * high), num)) / 4.37e-3


def gammatone(frequency: float, rate: float) -> np.ndarray:
    """Return an all-pole gammatone filter as sections [4, 6], each with the poles exp(2 pi (-b +- i f) / rate)."""
    pole = np.exp(2.0 * np.pi * (-1.019 * erb(frequency) + 1j * frequency) / rate)
    denominator = np.array([1.0, -2.0 * pole.real, abs(pole) ** 2])
    delay = np.exp(-2j * np.pi * frequency / rate) ** np.arange(3)
    section = np.concatenate([[abs(denominator @ delay), 0.0, 0.0], denominator])
    return np.tile(section, (4, 1))


def cochlea(
    audio: np.ndarray,
    rate: float,
    *,
    dt: float = 10.0,
    num_channels: int = 40,
    low: float = 100.0,
    high: float,
    tau: float = 4.0,
    floor: float = 1e-3,
) -> np.ndarray:
    r"""Return the drive [T, C] of sound [samples] of about 1: ln(1 + pi a / floor) in steps of dt, ms.

    A tone of amplitude A at a channel's frequency gives it about ln(1 + A / floor). ``tau`` is that of the envelope,
    ms; the rate and the frequencies are in Hz.
    """
    width = round(rate * dt / 1000.0)
    if abs(width - rate * dt / 1000.0) > 1e-6 * width or not 0.0 < low <= high < 0.5 * rate:
        raise ValueError(
            f"dt = {dt:g} ms must be whole samples at {rate:g} Hz, {low:g} to {high:g} Hz below half of it"
        )
    smooth = np.exp(-1000.0 / (rate * tau))
    drive = np.empty((len(audio) // width, num_channels))
    for i, frequency in enumerate(erb_space(low, high, num_channels)):
        band = np.maximum(sosfilt(gammatone(frequency, rate), audio), 0.0)
        envelope = lfilter([1.0 - smooth], [1.0, -smooth], band)
        drive[:, i] = envelope[: len(drive) * width].reshape(-1, width).mean(axis=1)
    # A half-wave rectified sine of amplitude A has the mean A/pi.
    return np.log1p(np.pi / floor * drive)
