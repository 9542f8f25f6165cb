"""What a recording shows before any fit: what is said of it, whether its current was sampled, where the cell rests."""

import hashlib
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxlif.recordings.protocol import find_epochs, is_step_protocol, mains_hum
from jaxlif.recordings.recording import Recording, RecordingWarning, remembered
from jaxlif.recordings.spikes import SpikeRule, spike_notes
from jaxlif.recordings.units import EVIDENT, away_from, delay, evidence

DRIFT = 2.0  # mV by which the rest may move from sweep to sweep before that is said
_AT_STEP = 0.3  # ms after a step of the current in which no membrane has moved far and no spike has risen
_AROUND_SPIKE = (1.0, 10.0)  # ms before and after a spike in which the voltage moves by itself
_JUMP = 3.0  # mV, a jump of the voltage that is worth a note
_APART = 0.05  # share of the command's range by which command and recorded current may differ
_FOLLOWS_NOT = "the recorded current does not follow the command"
_NEAR_SPIKE = (5.0, 50.0)  # ms before and after a spike in which a voltage may stay at its extreme

COARSE = 0.5  # ms: from this dt on half a sample matters to spike times
_BESIDE = 0.15  # share of the previous sample in the voltage's increments below which it has none
_SPIKE = (5.0, 40.0)  # ms left out before and after a spike: its currents are not the injected one

_QUIET = 0.05  # share of the largest current up to which its mean counts as none
_MEAN = 10.0  # ms over which that mean is taken: measured currents are noisy
_SETTLED = 100.0  # ms of no current that a resting potential is taken from, at least
_LEFT_OUT = 0.5  # share of the quiet stretch that is given to what came before it

_PADDED = 5.0  # ms of one value at the end of a sweep from which on it may be padding
_LONGER = 10  # times the longest run of one value before it that padding with the last value is longer
_ZERO = 2.0  # mV about 0 mV in which an amplifier rests that was switched off, or sees nothing
_ZERO_LONGER = 3  # times the longest time there before, which is that of a spike's end or of a reset to 0 mV
_JUMP_TO_ZERO = 20.0  # mV to there from one sample to the next


def notes_on(
    recording: Recording,
    spikes: Bool[np.ndarray, "sweeps T"],
    rule: SpikeRule = SpikeRule(),  # noqa: B008, a frozen value
    *,
    held: Sequence[int] | np.ndarray = (),
    compensated: Recording | None = None,
) -> tuple[str, ...]:
    """Return what is odd about a recording, ``compensated`` without its electrode, of which ``held`` were held out."""
    return (
        *_copied(recording, np.asarray(held, int)),
        *_sampled(recording, spikes),
        *spike_notes(recording, rule),
        *(() if recording.voltage is None else _saturated(recording, spikes)),
        *(() if recording.voltage is None else _artefacts(compensated or recording, spikes)),
        *_humming(recording),
        *(() if recording.voltage is None else _delayed(recording, spikes)),
    )


def rest_notes(recording: Recording, spikes: Bool[np.ndarray, "sweeps T"]) -> tuple[str, ...]:
    """Say that the cell rests elsewhere in other sweeps, for a model that has one resting potential for all."""
    rest = resting_potentials(recording, spikes)
    if rest is None or np.ptp(rest) < DRIFT:
        return ()
    span = f"{np.ptp(rest):.2g} mV from sweep to sweep, {rest.min():.4g} to {rest.max():.4g} mV before the stimulus"
    return (f"the rest moves by {span}: one v_rest stands for all",)


def _copied(recording: Recording, held: np.ndarray) -> Iterator[str]:
    first = copies(recording)
    again = np.flatnonzero(first != np.arange(len(first)))
    if again.size:
        leaked = [s for s in held if np.setdiff1d(np.flatnonzero(first == first[s]), held).size]
        yield (
            f"{again.size} of {len(first)} sweeps have the voltage of an earlier one in every sample (sweep {again[0]}"
            f" that of {first[again[0]]}): one trial stored again, or a model without noise; each counts once"
        ) + "".join(f"; sweep {s}, held out, is the copy of one that was fitted, and no test" for s in leaked[:1])


def _sampled(recording: Recording, spikes: np.ndarray) -> Iterator[str]:
    if recording.current_source != "recorded" and is_sampled(recording, spikes):
        yield (
            f"where the current comes from is unknown: at dt = {recording.dt:g} ms it was taken to be sampled with the"
            " voltage, and each step receives the mean of two samples; say current_source = 'commanded' if it is held"
        )


def _humming(recording: Recording) -> Iterator[str]:
    """Say that a recorded current hums; a line that is a quarter of all there is, or more, is the stimulus."""
    hum = mains_hum(recording)
    if hum is not None and hum.amplitude <= 0.25 * np.ptp(recording.current):
        yield (
            f"the current has a hum of {hum.amplitude:.2g} pA at {hum.frequency:g} Hz: steps are looked for without it,"
            " unless it is more than a tenth of them, and the membrane is fitted with or without it, whichever the"
            " voltage follows; the model is run with it"
        )


def _delayed(recording: Recording, spikes: np.ndarray) -> Iterator[str]:
    """Say that the voltage follows the current late, or comes before it: a fit takes either for the membrane's."""
    if late := delay(recording.current, recording.measured_voltage(), recording.dt, spikes):
        yield (
            f"the voltage comes {abs(late):.2g} ms {'after' if late > 0 else 'before'} the current that drives it: one"
            " of them is shifted in the file, and tau_m and latencies are wrong by about as much"
        )


def _saturated(recording: Recording, spikes: np.ndarray) -> Iterator[str]:
    """Warn of a voltage that stays exactly at its extreme away from spikes: an amplifier or a converter at its end."""
    v = recording.measured_voltage()[away_from(spikes, *_NEAR_SPIKE, recording.dt)]
    for end in (v.min(), v.max()) if v.size >= 100 and np.ptp(v) > 0 else ():
        if (share := float(np.mean(v == end))) > 0.005:
            where = f"{100.0 * share:.2g} % of the voltage away from spikes is exactly {end:.4g} mV"
            yield f"{where}: is it saturated or clipped?"


def _artefacts(recording: Recording, spikes: np.ndarray) -> Iterator[str]:
    """Say where steps of the current leave peaks taken for spikes, or jumps that no membrane makes: a spike needs over
    0.3 ms; a voltage that follows by 3 mV in that time shows electrode or stimulator.
    """
    voltage, within = recording.measured_voltage(), max(1, round(_AT_STEP / recording.dt))
    if not (edges := _edges(recording)):
        return
    count = sum(_is_peak(voltage[s], spikes[s], n, within) for s, n, _ in edges)
    if count:
        yield (
            f"{count} of {int(spikes.sum())} spikes come within {_AT_STEP:g} ms of a step of the current and end as"
            " fast: they are stimulus artefacts rather than spikes; cut them out of the voltage, or give the"
            " recording's spikes"
        )
    calm = away_from(spikes, *_AROUND_SPIKE, recording.dt)
    quiet = [(s, n, min(n + within, recording.num_steps) - 1, size) for s, n, size in edges if calm[s, n]]
    jumps = np.array([voltage[s, end] - voltage[s, n - 1] for s, n, end, _ in quiet])
    if quiet and (typical := float(np.median(np.abs(jumps)))) >= _JUMP:
        resistance = float(np.median(jumps / np.array([size for *_, size in quiet])))
        yield (
            f"the voltage jumps by {typical:.3g} mV within {_AT_STEP:g} ms of the steps of the current"
            f" ({1000.0 * resistance:.3g} MΩ): an electrode's drop that was not compensated, or a stimulus artefact"
        )


def _edges(recording: Recording) -> list[tuple[int, int, float]]:
    """Return sweep, first sample and size (pA) of every step of the current that is a fifth of the largest or more."""
    epochs = find_epochs(recording) if is_step_protocol(recording) else ()
    pairs = [(a, b) for a, b in zip(epochs, epochs[1:], strict=False) if a.sweep == b.sweep and a.stop == b.start]
    edges = [(b.sweep, b.start, b.level - a.level) for a, b in pairs]
    largest = max((abs(size) for _, _, size in edges), default=0.0)
    return [edge for edge in edges if abs(edge[2]) > 0.2 * largest]


def _is_peak(voltage: np.ndarray, spikes: np.ndarray, first: int, within: int) -> bool:
    part = voltage[first : first + 3 * within]
    above = part >= 0.5 * (part[:within].max() + voltage[first - 1])  # half of its height
    return bool(0 < above.sum() <= within and spikes[first : first + within].any())


def require_stimulus(recording: Recording, spikes: Bool[np.ndarray, "sweeps T"] | None = None) -> None:
    """Refuse a current that never changes or leaves no trace in the voltage, and a voltage that was the command."""
    current, voltage = recording.current, recording.voltage
    if (current == current.flat[0]).all():
        text = f"current = {current.flat[0]:g} pA in every sample of every sweep: a fit needs a current that varies"
        raise ValueError(f"{text} (is the command or the recorded current missing from the file?)")
    if voltage is None:
        return
    changing = [float(np.mean(np.diff(x, axis=1) != 0)) for x in (voltage, current)]
    silent = spikes is None or not spikes.any()
    if silent and np.ptp(voltage) > 0 and changing[0] < 0.005 and changing[1] > 0.5:
        raise ValueError(
            "voltage changes in steps that are exact to the digit while the current is not constant between them: the"
            " voltage was the command, in voltage clamp, where a fit needs an injected current"
        )
    if (found := evidence(current, voltage, recording.dt, spikes)) < EVIDENT:
        raise ValueError(
            f"current: its changes (SD {np.std(current):.3g} pA around {np.mean(current):.4g} pA) leave no trace in the"
            f" voltage (F = {found:.2g}, {EVIDENT:g} are needed): it is noise without a stimulus, or belongs to another"
            " cell, and nothing about the membrane can be inferred from it"
        )


# --- command and recorded current --------------------------------------------------------------------------


def warn_of_difference(pairs: Sequence[tuple[list[np.ndarray], list[np.ndarray]]], dt: float, which: str) -> None:
    """Warn of a recorded current that follows no command, or whose levels are others; ``which`` says what is read."""
    even = [(a, b) for a, b in pairs if len({sweep.size for sweep in (*a, *b)}) == 1 and a[0].size > 1]
    stacked = [(np.stack(a), np.stack(b)) for a, b in even]
    texts = [_difference(a, b, dt) for a, b in stacked if (b != b.flat[0]).any()]
    if texts and all(texts):
        # Of several commands, or recorded currents, the one that follows best is meant.
        text = min((t for t in texts if t), key=lambda t: t.startswith(_FOLLOWS_NOT))
        warnings.warn(f"{text}; {which}", RecordingWarning, stacklevel=4)


def _difference(recorded: np.ndarray, command: np.ndarray, dt: float) -> str | None:
    """Say in which a recorded current [sweeps, T] differs from a command of the same shape, if it does."""
    if np.std(recorded) == 0 or np.corrcoef(recorded.ravel(), command.ravel())[0, 1] < 0.5:
        return f'{_FOLLOWS_NOT}: if its channel was not connected, ask for current="commanded"'
    epochs = find_epochs(Recording(command, dt=dt))
    if not epochs:
        gain = np.cov(recorded.ravel(), command.ravel())[0, 1] / np.var(command, ddof=1)
        return f"the recorded current is {gain:.3g} times the command" if abs(gain - 1.0) > 2.0 * _APART else None
    levels = np.array([epoch.level for epoch in epochs])
    measured = np.array([np.median(recorded[epoch.sweep, epoch.start : epoch.stop]) for epoch in epochs])
    offset, least = float(np.median(measured - levels)), _APART * np.ptp(command)
    apart = np.abs(measured - levels - offset)
    worst = int(apart.argmax())
    if apart[worst] > least:
        where = f"in sweep {epochs[worst].sweep} at {epochs[worst].start * dt:.4g} ms {levels[worst]:.4g}"
        return f"command and recorded current have other levels: {where} and {measured[worst]:.4g} pA"
    return f"the recorded current lies {offset:+.3g} pA beside the command throughout" if abs(offset) > least else None


# --- a current sampled or held ----------------------------------------------------------------------------


def is_sampled(recording: Recording, spikes: Bool[np.ndarray, "sweeps T"] | None = None) -> bool:
    r"""Return whether a current was measured at the instants of the voltage, and so far apart that it counts.

    Where the source is not known the voltage is asked, away from spikes: a current that is held has :math:`c_1 = 0` in
    :math:`V_n - V_{n-1} = a + b V_{n-1} + c_0 I_n + c_1 I_{n-1}`. A commanded one is held; below 0.5 ms it is the same.
    """
    if recording.dt < COARSE or recording.current_source == "commanded":
        return False
    if recording.current_source == "recorded":
        return True
    return recording.voltage is not None and abs(_share_before(recording, spikes)) > _BESIDE


def held_current(recording: Recording, sampled: bool) -> Recording:
    """Return a recording whose current is the mean over each step: of a sampled one that of two samples."""
    if not sampled or recording.dt < COARSE or recording.current_source == "commanded":
        return recording
    before = np.concatenate([recording.current[:, :1], recording.current[:, :-1]], axis=1)
    return recording.part(np.s_[:, :], current=0.5 * (before + recording.current))


def undisturbed(
    spikes: Bool[np.ndarray, "sweeps T"] | None, shape: tuple[int, int], dt: float
) -> Bool[np.ndarray, "sweeps T-1"]:
    """Mark the increments from one sample to the next that no spike disturbs."""
    return away_from(np.zeros(shape, bool) if spikes is None else spikes, *_SPIKE, dt)[:, :-1]


def _share_before(recording: Recording, spikes: np.ndarray | None) -> float:
    """Return how much of c1 / (c0 + c1) is sure; 0 where the current does not vary from sample to sample."""
    current, voltage = recording.current, recording.measured_voltage()
    usable = undisturbed(spikes, current.shape, recording.dt)
    columns = [x[usable] for x in (voltage[:, :-1], current[:, 1:], current[:, :-1])]
    design = np.stack([*columns, np.ones(int(usable.sum()))], axis=1)
    increments = np.diff(voltage, axis=1)[usable]
    found, squares, rank, _ = np.linalg.lstsq(design, increments, rcond=1e-9)
    if rank < design.shape[1] or not squares.size:
        return 0.0
    variance = squares[0] / len(increments) * np.linalg.inv(design.T @ design)[2, 2]
    sure = max(abs(found[2]) - 2.0 * float(np.sqrt(variance)), 0.0)
    return float(sure / abs(found[1] + found[2]))


# --- the rest ---------------------------------------------------------------------------------------------


def resting_potentials(
    recording: Recording, spikes: Bool[np.ndarray, "sweeps T"]
) -> Float[np.ndarray, " sweeps"] | None:
    """Return the resting potential of each sweep, mV, by :func:`quiet_voltage`; None where one is not known."""
    rest = quiet_voltage(recording, spikes)
    return None if np.isnan(rest).any() else rest


def quiet_voltage(recording: Recording, spikes: Bool[np.ndarray, "sweeps T"]) -> Float[np.ndarray, " sweeps"]:
    """Return the mean voltage of each sweep at the end of its quiet start, mV; NaN for less than 100 ms, or a spike.

    It ends where the mean over 10 ms exceeds 5 % of the largest current; its first half is left to what came before.
    """
    length = min(max(1, round(_MEAN / recording.dt)), recording.num_steps)
    total = np.cumsum(np.pad(recording.current, ((0, 0), (1, 0))), axis=1)
    loud = np.abs(total[:, length:] - total[:, :-length]) / length > _QUIET * np.abs(recording.current).max()
    # The first mean that is loud has its loud samples at its end, up to which it is quiet.
    ends = np.where(loud.any(axis=1), loud.argmax(axis=1), recording.num_steps)
    for epoch in find_epochs(recording) if is_step_protocol(recording) else ():
        if epoch.start == 0:  # it ends with a step, however small
            ends[epoch.sweep] = min(ends[epoch.sweep], epoch.stop)
    least = round(_SETTLED / recording.dt) - length
    known = [end >= least and not train[:end].any() for train, end in zip(spikes, ends, strict=True)]
    rows = zip(recording.measured_voltage(), ends, known, strict=True)
    return np.array([voltage[int(_LEFT_OUT * end) : end].mean() if calm else np.nan for voltage, end, calm in rows])


# --- sweeps -----------------------------------------------------------------------------------------------


@remembered
def copies(recording: Recording) -> Int[np.ndarray, " sweeps"]:
    """Return of each sweep the number of the first whose voltage is the same in every sample; without one, its own."""
    if recording.voltage is None:
        return np.arange(recording.num_sweeps)
    known: dict[bytes, int] = {}
    digests = (hashlib.sha256(v.tobytes()).digest() for v in recording.voltage)
    return np.array([known.setdefault(digest, sweep) for sweep, digest in enumerate(digests)])


def padding(recording: Recording) -> Int[np.ndarray, " sweeps"]:
    """Return from which sample on each sweep is padded, T where it is not: with zeros, to which the voltage jumps and
    near which it stays, or with its last value, to the bit, where it had noise before.
    """
    voltage, ends = recording.measured_voltage(), []
    runs = [_last_run(np.append(False, v[1:] == v[:-1])) for v in voltage]
    least = max(_PADDED / recording.dt, _LONGER * max(longest for _, longest in runs))
    for v, (same, _) in zip(voltage, runs, strict=True):
        zero, longest = _last_run(np.abs(v) < _ZERO)
        stays = zero > max(2, _ZERO_LONGER * longest)
        if stays and abs(v[-zero] - v[-zero - 1]) > _JUMP_TO_ZERO:
            ends.append(v.size - zero)
        else:
            ends.append(v.size - same if least < same < v.size - 1 else v.size)
    return np.array(ends)


def _last_run(flags: np.ndarray) -> tuple[int, int]:
    """Return the length of the run of True at the end, 0 where there is nothing else, and of the longest before it."""
    ends = np.append(np.flatnonzero(~flags), flags.size)
    lengths = np.diff(ends, prepend=-1) - 1
    return (int(lengths[-1]) if len(ends) > 1 else 0), int(lengths[:-1].max(initial=0))


def without_padding(recording: Recording) -> tuple[Recording, tuple[str, ...]]:
    """Return a recording that ends where all of its sweeps are padded, and say so; refuse one where some are."""
    ends = padding(recording)
    short = np.flatnonzero(ends < recording.num_steps)
    if not short.size:
        return recording, ()
    if short.size < recording.num_sweeps:
        when = recording.start + recording.dt * ends[short[0]]
        others = ",".join(str(s) for s in np.setdiff1d(np.arange(recording.num_sweeps), short))
        raise ValueError(
            f"voltage stays at {recording.measured_voltage()[short[0], -1]:.4g} mV from {when:.5g} ms to the end in"
            f" sweep {short[0]} ({short.size} of {recording.num_sweeps} sweeps end so): it stopped early and was"
            f" padded; choose the others, --sweeps {others}"
        )
    when = recording.start + recording.dt * ends.min()
    note = f"every sweep is padded, the first from {when:.5g} ms on, where its voltage stays at one value: cut there"
    return unpadded(recording), (note,)


def unpadded(recording: Recording) -> Recording:
    """Return a recording that ends where all of its sweeps are padded."""
    ends = padding(recording)
    if ends.max() == recording.num_steps:
        return recording
    return recording.window(recording.start, recording.start + recording.dt * ends.min())
