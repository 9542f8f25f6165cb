"""A small cochlea: sound becomes the drive of auditory nerve fibres, and with neurons or levels behind it spikes."""

import numpy as np
from numpy.typing import ArrayLike

from jaxlif.checks import whole


def erb(frequency: ArrayLike) -> np.ndarray:
    r"""Return the bandwidth of hearing, :math:`ERB(f) = 24.7\,(4.37 f / 1000 + 1)`, Hz.

    Args:
        frequency: f, Hz, any shape.

    Returns:
        Equivalent rectangular bandwidth of the auditory filter at f, Hz.

    Example:
        >>> float(erb(1000.0).round(1))
        132.6

    Source: Glasberg & Moore 1990, doi:10.1016/0378-5955(90)90170-T.
    """
    return 24.7 * (4.37e-3 * np.asarray(frequency, float) + 1.0)


def erb_space(low: float, high: float, num: int) -> np.ndarray:
    r"""Space frequencies evenly on the scale of hearing, where :math:`E(f) = \ln(1 + 4.37 f / 1000)` is uniform.

    Args:
        low: lowest, Hz.
        high: highest, Hz.
        num: how many.

    Returns:
        Frequencies [num], Hz, rising.

    Example:
        >>> erb_space(100.0, 4000.0, 4).round().tolist()
        [100.0, 542.0, 1576.0, 4000.0]

    Source: Glasberg & Moore 1990, doi:10.1016/0378-5955(90)90170-T.
    """
    scale = np.linspace(np.log1p(4.37e-3 * low), np.log1p(4.37e-3 * high), num)
    return np.expm1(scale) / 4.37e-3


def cochlea(
    audio: ArrayLike,
    rate: float,
    *,
    dt: float = 10.0,
    num_channels: int = 40,
    low: float = 100.0,
    high: float | None = None,
    tau: float = 4.0,
    floor: float = 1e-3,
) -> np.ndarray:
    r"""Split sound into bands, as the inner ear does, and return each band's compressed envelope.

    Per channel: an all-pole gammatone filter of order 4 around :math:`f_c`, evenly spaced on the ERB scale, with gain 1
    at :math:`f_c`; half-wave rectification; a low-pass of time constant ``tau``, which leaves the envelope a; the mean
    over each step of dt; and a logarithm, :math:`y = \ln(1 + \pi a / floor)`: a tone of amplitude A at :math:`f_c`
    gives about :math:`\ln(1 + A / floor)`. A louder sound adds the same to all channels above the floor.

    The result is a drive, not spikes: inject it into LIF neurons, or let :func:`jaxlif.networks.level_crossing` mark
    where it rises and falls. It is made once for a data set, in NumPy, and carries no gradient.

    Args:
        audio: sound [samples], integers in full scale of their type, silence being the middle of it, or floating
            numbers of about 1.
        rate: samples per second, Hz.
        dt: step of the result, ms, a whole number of samples.
        num_channels: C.
        low: lowest centre frequency, Hz.
        high: highest, Hz; by default 0.45 of the sampling rate, 90 % of what it can carry.
        tau: of the envelope, ms.
        floor: amplitude below which a channel counts as silent, in full scale.

    Returns:
        Drive [T, C], 0 or more, with T = samples / (rate dt), a last part of a step left out.

    Raises:
        ValueError: for sound that is not [samples], not finite or shorter than a step, a dt that is not a whole number
            of samples, frequencies out of order or above half the rate, or another number that is not positive.

    Example:
        >>> t = np.arange(8000) / 8000.0
        >>> drive = cochlea(np.sin(2.0 * np.pi * 1000.0 * t), 8000.0, num_channels=3, low=500.0, high=2000.0)
        >>> drive.shape, int(drive[50].argmax())
        ((100, 3), 1)

    Source: Katsiamis, Drakakis & Lyon 2007, doi:10.1155/2007/63685 (all-pole gammatone filters); Glasberg &
    Moore 1990, doi:10.1016/0378-5955(90)90170-T.
    """
    high = 0.45 * rate if high is None else high
    sound = _checked(audio, rate, dt, num_channels, low, high, tau, floor)
    width = round(rate * dt / 1000.0)
    from scipy.signal import lfilter, sosfilt  # as slow to load as all else that jaxlif imports

    smooth = np.exp(-1000.0 / (rate * tau))
    drive = np.empty((len(sound) // width, num_channels))
    for i, frequency in enumerate(erb_space(low, high, num_channels)):
        band = np.maximum(sosfilt(gammatone(frequency, rate), sound), 0.0)
        envelope = lfilter([1.0 - smooth], [1.0, -smooth], band)
        drive[:, i] = envelope[: len(drive) * width].reshape(-1, width).mean(axis=1)
    # A half-wave rectified sine of amplitude A has the mean A/pi.
    return np.log1p(np.pi / floor * drive)


def gammatone(frequency: float, rate: float) -> np.ndarray:
    r"""Return an all-pole gammatone filter of order 4 as second-order sections.

    Each section has the poles :math:`e^{2\pi (-b \pm i f) / r}` with :math:`b = 1.019\,ERB(f)`, and gain 1 at f.

    Args:
        frequency: f, Hz.
        rate: r, samples per second, Hz.

    Returns:
        Sections [4, 6] for ``scipy.signal.sosfilt``.

    Example:
        >>> gammatone(1000.0, 8000.0).shape
        (4, 6)

    Source: Katsiamis, Drakakis & Lyon 2007, doi:10.1155/2007/63685.
    """
    pole = np.exp(2.0 * np.pi * (-1.019 * erb(frequency) + 1j * frequency) / rate)
    denominator = np.array([1.0, -2.0 * pole.real, abs(pole) ** 2])
    delay = np.exp(-2j * np.pi * frequency / rate) ** np.arange(3)
    section = np.concatenate([[abs(denominator @ delay), 0.0, 0.0], denominator])
    return np.tile(section, (4, 1))


def _checked(audio, rate, dt, num_channels, low, high, tau, floor) -> np.ndarray:
    """Return the sound as floating numbers in full scale, refusing what cannot be filtered."""
    for name, value, unit in (("rate", rate, " Hz"), ("dt", dt, " ms"), ("tau", tau, " ms"), ("floor", floor, "")):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} = {value:g}{unit}: {name} must be greater than 0{unit}")
    width = rate * dt / 1000.0
    if round(width) < 1 or abs(width - round(width)) > 1e-6 * width:
        raise ValueError(f"dt = {dt:g} ms: it must be a whole number of samples of {1000.0 / rate:g} ms")
    whole("num_channels", num_channels, 1)
    if not 0.0 < low <= high < 0.5 * rate:
        raise ValueError(f"low = {low:g} Hz, high = {high:g} Hz: they must rise, above 0 and below {0.5 * rate:g} Hz")
    sound = np.asarray(audio)
    if sound.ndim != 1 or len(sound) < round(width):
        raise ValueError(f"audio has shape {list(sound.shape)}: it must be [samples] and last a step of {dt:g} ms")
    if np.issubdtype(sound.dtype, np.unsignedinteger):  # silence is the middle, as in 8-bit files
        half = (np.iinfo(sound.dtype).max + 1.0) / 2.0
        return sound / half - 1.0
    if np.issubdtype(sound.dtype, np.integer):
        return sound / (np.iinfo(sound.dtype).max + 1.0)
    if not np.issubdtype(sound.dtype, np.floating):
        raise ValueError(f"audio is of type {sound.dtype}: it must hold integers or floating numbers")
    if not np.isfinite(sound).all():
        raise ValueError("audio is not finite: every sample must be")
    return sound.astype(float)
