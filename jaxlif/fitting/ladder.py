"""The ladder: which mechanisms does this cell need?

From a plain neuron with escape noise on one mechanism after the other is let go, from where the last that was taken
ended, and kept where what was not fitted gains: whole stimuli or steps, or every fourth second of a single noise.
"""

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from jaxlif.fitting.data import Data, with_spikes
from jaxlif.fitting.joint_likelihood import JointLoss, Score, bits_above
from jaxlif.fitting.lanes import LENGTH, UPSTROKE, cut_lanes, single_precision
from jaxlif.fitting.optimise import Minimum, finite, minimise
from jaxlif.fitting.prepare import prepare
from jaxlif.fitting.regression import moving, regress
from jaxlif.losses import spike_mask
from jaxlif.neurons.a_current import ACurrent
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.neurons.mechanisms import Mechanism, MembraneCurrent, VoltageCoupling
from jaxlif.recordings import Electrode, Recording, SpikeRule, repeats
from jaxlif.recordings.protocol import is_step_protocol

BEND = 10.0  # mV below the voltage at spikes where the coupling's bend starts
CURRENTS = ((-45.0, 5.0), (-40.0, 100.0), (-85.0, 150.0))  # v_i, mV, and tau, ms, where currents start
KERNELS = "currents and thresholds after spikes"
COUPLING = "a threshold that follows the voltage"
TRANSIENT = "an A-current"
#: What is let go, rung by rung.
STAGES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("LIF with escape noise", ("tau_m", "r_m", "v_rest", "v_reset", "v_th", "delta_v")),
    (KERNELS, ("eta.*", "gamma.*")),
    (COUPLING, ("coupling.*",)),
    (TRANSIENT, ("mechanisms.3.*",)),
    ("a fast current through the membrane", ("mechanisms.0.*",)),
    ("a slow current", ("mechanisms.1.*",)),
    ("an inward rectifier", ("mechanisms.2.*",)),
)
BUILT_IN = len(CURRENTS) + 1  # mechanisms that are tried; those that are given come after them
IDLE = 1e-6  # nS of the transient current where it has no part
LEAST_GAIN = 1.0  # nats of unseen spikes and voltage that a mechanism must bring
OTHER_GAIN = 4.0  # where other stimuli judge, to which what is gained by chance does not carry over
FEW = 3  # sweeps that mechanisms are chosen on, where all are repeats
MOST_STIMULI = 4  # or steps, that are left out in turn
LEAST_JUDGED = 10  # unseen spikes: fewer decide nothing
ENOUGH = 1.0  # nats a step: a rung need not be fitted to the last


class Rung(NamedTuple):
    """A model of the ladder: its name and parameters, what it is worth on unseen data, and whether it was ``taken``.

    ``loss``, nats of spikes and voltage together; ``held_out``, bits per spike; ``explained``, the share of the
    variance of the voltage with spikes forced.
    """

    name: str
    params: AdaptiveLIFParams
    loss: float
    held_out: float
    explained: float
    taken: bool


@dataclass(frozen=True)
class Ladder:
    """The rungs from the plain neuron to the full one, and the number of unseen spikes that ``judged``."""

    rungs: tuple[Rung, ...]
    judged: int

    @property
    def best(self) -> Rung:
        """The last rung that was taken."""
        return [rung for rung in self.rungs if rung.taken][-1]

    @property
    def params(self) -> AdaptiveLIFParams:
        """The parameters of the best rung, with those mechanisms alone that were taken."""
        return self.pruned(self.best.params)

    @property
    def sentence(self) -> str:
        """Say in words which mechanisms this cell needs."""
        needed = [f"{r.name} ({r.held_out:.2f} bits, {100.0 * r.explained:.1f} %)" for r in self.rungs[1:] if r.taken]
        idle = [rung.name for rung in self.rungs[1:] if not rung.taken]
        plain = "a plain neuron with escape noise does for this cell"
        parts = [f"this cell needs {', '.join(needed)}" if needed else plain]
        parts += [f"it gains nothing from {', '.join(idle)}"] * bool(idle)
        if self.judged < LEAST_JUDGED:
            return f"{self.judged} unseen spikes, of {LEAST_JUDGED} needed, say nothing about further mechanisms"
        parts.append(f"judged on {self.judged} unseen spikes, in bits each, and the voltage between them")
        return "; ".join(parts)

    def pruned(self, params: AdaptiveLIFParams) -> AdaptiveLIFParams:
        """Return parameters of all mechanisms without those that were not taken."""
        taken = {pattern for rung in self.rungs if rung.taken for pattern in dict(STAGES)[rung.name]}
        named = enumerate(params.mechanisms)
        kept = tuple(m for i, m in named if i >= BUILT_IN or f"mechanisms.{i}.*" in taken)
        plain: dict[str, Any] = {} if "eta.*" in taken else dict.fromkeys(("eta", "tau_eta", "gamma", "tau_gamma"), ())
        coupling = params.coupling if "coupling.*" in taken else None
        return replace(params, mechanisms=kept, coupling=coupling, **plain)


def model_ladder(
    recording: Recording,
    *,
    window: tuple[float, float] | None = None,
    electrode: Electrode | float | str | None = "auto",
    spike_rule: SpikeRule = SpikeRule(),  # noqa: B008, a frozen value
    progress: bool = False,
) -> Ladder:
    """Say which mechanisms a cell needs: from a plain neuron with escape noise up to currents through its membrane.

    Rungs: a LIF with escape noise; currents and threshold movements after spikes; a threshold that follows the voltage;
    an A-current; a fast and a slow outward current that the voltage opens; an inward rectifier. They are those among
    which :func:`jaxlif.fit_recording` chooses a "gif".

    Args:
        recording: current and voltage.
        window: (start, stop) in ms; by default the first 70 %, as for :func:`fit_recording`.
        electrode: what is taken off the voltage, as for :func:`fit_recording`.
        spike_rule: how spikes are found where the recording does not hold them.
        progress: show progress bars.

    Returns:
        The :class:`Ladder`; print its ``sentence``.

    Raises:
        ValueError: as :func:`fit_recording`, and where fewer than ten spikes are left to judge.

    Source: Teeter et al. 2018, doi:10.1038/s41467-017-02717-4 (a ladder of models, judged on held-out data).
    """
    case = prepare(recording, "gif", window=window, electrode=electrode, rule=spike_rule)
    every = replace(case, held=np.zeros(0, int), kept=np.union1d(case.kept, case.held))
    found = climb(with_spikes(every.fitted, case.window), progress=progress)
    if found.judged < LEAST_JUDGED:
        raise ValueError(f"{found.judged} spikes are left to judge mechanisms by: {LEAST_JUDGED} are needed")
    return found


def climb(
    data: Data,
    *,
    coupling: bool | None = None,
    mechanisms: tuple[Mechanism, ...] = (),
    progress: bool = False,
) -> Ladder:
    """Let go one mechanism after the other, and say what each is worth.

    ``coupling`` takes the threshold that follows the voltage, or leaves it out, without asking; ``mechanisms`` are
    there from the first rung on, and start as they are.
    """
    few = representative(data)
    with single_precision():
        start = full_start(few, mechanisms)
        folds = [_Fold(start, few, fitted) for fitted in folds_of(few)]
        judged = sum(fold.spikes for fold in folds)
        names, active, rungs = folds[0].loss.coordinate.names, np.zeros(0, int), list[Rung]()
        given_patterns = tuple(f"mechanisms.{BUILT_IN + i}.*" for i in range(len(mechanisms)))
        stages, least = STAGES if judged >= LEAST_JUDGED else STAGES[: 3 if coupling else 2], folds[0].least
        # A current that gains nothing alone may do so beside those that came after it.
        again = (stage for stage in stages[3:] if not any(r.taken for r in rungs if r.name == stage[0]))
        for name, patterns in chain(stages, again):
            # Of several stimuli no one may ask for kernels with which all that is above them carries over.
            needed = judged < LEAST_JUDGED or (name == KERNELS and folds[0].other)
            given = coupling if name == COUPLING else needed or None
            if given is False:
                continue
            patterns += given_patterns * (not rungs)
            more = [i for i, leaf in enumerate(names) if any(fnmatchcase(leaf, p) for p in patterns)]
            active = np.union1d(active, more).astype(int)
            for fold in folds:
                fold.wake(more)
                fold.fit(active, progress)
            below = [rung.loss for rung in rungs if rung.taken] or [np.inf]
            worth, best = sum(fold.worth for fold in folds), below[-1] if folds[0].other else min(below)
            taken = given is True or not rungs or worth < best - least
            held_out, explained = (float(np.mean(x)) for x in zip(*(fold.scores for fold in folds), strict=True))
            if taken:
                rungs = [rung for rung in rungs if rung.name != name]
            if all(rung.name != name for rung in rungs):
                rungs.append(Rung(name, folds[0].params, worth, held_out, explained, taken))
            if taken:  # kernels with it, which alone may not carry over: all above them is tried with them
                rungs = [rung._replace(taken=rung.taken or rung.name == KERNELS) for rung in rungs]
            if taken or name == KERNELS:
                for fold in folds:
                    fold.vector = fold.found.vector
            else:
                active = np.setdiff1d(active, more)
                for fold in folds:
                    fold.vector[more] = fold.idle[more]
        if not folds[0].other and judged >= LEAST_JUDGED and not coupling:
            rungs = _without_idle(rungs, folds, active, progress)
    return Ladder(tuple(rungs), judged)


def _without_idle(rungs: list[Rung], folds: list["_Fold"], active: np.ndarray, progress: bool) -> list[Rung]:
    """Leave away, one by one, what gained little when it was taken, where all above it do as well without."""
    best, names, left = min(rung.loss for rung in rungs if rung.taken), folds[0].loss.coordinate.names, list(rungs)
    for n, rung in enumerate(rungs[:-1]):
        below = [r.loss for r in rungs[:n] if r.taken]
        if not below or not rung.taken or rung.loss < min(below) - OTHER_GAIN:
            continue
        patterns = dict(STAGES)[rung.name]
        own = np.array([i for i, name in enumerate(names) if any(fnmatchcase(name, p) for p in patterns)])
        before = [fold.vector for fold in folds]
        for fold in folds:
            fold.vector = fold.vector.copy()
            fold.vector[own] = fold.idle[own]
            fold.fit(np.setdiff1d(active, own), progress)
        if sum(fold.worth for fold in folds) < best + folds[0].least:
            left[n], active = rung._replace(taken=False), np.setdiff1d(active, own)
            before = [fold.found.vector for fold in folds]
        for fold, vector in zip(folds, before, strict=True):
            fold.vector = vector
    return left


def full_start(data: Data, mechanisms: tuple[Mechanism, ...] = ()) -> AdaptiveLIFParams:
    """Return the regression's membrane with every mechanism as it starts: all but the A-current at no amplitude."""
    plain = regress(data)
    currents = tuple(MembraneCurrent(a=0.0, v_i=v_i, tau=tau) for v_i, tau in CURRENTS)
    coupling = VoltageCoupling(b=0.0, v_i=plain.v_th - BEND)
    return replace(plain, coupling=coupling, mechanisms=(*currents, ACurrent(), *mechanisms))


def representative(data: Data) -> Data:
    """Return what mechanisms are chosen on, coarse in time: all of it, or, of many repeats, some of each stimulus."""
    if is_step_protocol(data):
        return data.coarser()
    groups = repeats(data)
    each = max(1, FEW // len(groups))
    spread = [np.linspace(0, len(group) - 1, min(each, len(group))).round().astype(int) for group in groups]
    chosen = [group[np.unique(n)] for group, n in zip(groups, spread, strict=True)]
    return data.select(np.sort(np.concatenate(chosen))).coarser()


def folds_of(data: Data) -> list[np.ndarray]:
    """Return what is fitted while mechanisms are chosen, [sweeps, T], once or in turn.

    All stimuli but one, each in turn, where several have spikes; of a family every other step that fires, or each in
    turn where they are few, but not the ends, beyond which nothing is judged, if the others have spikes enough; else
    all but every fourth second, at the same times of all sweeps.
    """
    everything, fire = np.ones(data.spikes.shape, bool), np.asarray(data.spikes.any(axis=1))
    if is_step_protocol(data):
        counts = data.spikes.sum(axis=1)
        order = np.argsort(counts, kind="stable")[int((~fire).sum()) :]
        inner = order[1:-1] if counts[order[1:-1]].sum() >= LEAST_JUDGED else order
        if len(order) > 1:
            return [_without(everything, x) for x in (inner[:, None] if len(inner) <= MOST_STIMULI else [inner[::2]])]
    elif 1 < len(groups := [group for group in repeats(data) if fire[group].any()]) <= MOST_STIMULI:
        return [_without(everything, group) for group in groups]
    block = data.steps(min(LENGTH, data.duration / 8.0))
    return [everything & (np.arange(data.num_steps) // block % 4 != 2)]


def _without(everything: np.ndarray, sweeps: np.ndarray) -> np.ndarray:
    fitted = everything.copy()
    fitted[sweeps] = False
    return fitted


class _Fold:
    """A part of the data that is fitted, and the rest that judges."""

    found: Minimum
    score: Score

    def __init__(self, start: AdaptiveLIFParams, data: Data, fitted: np.ndarray) -> None:
        seen, rest = (data.judging(data.judged & part) for part in (fitted, ~fitted))
        self.loss, self.rest = (
            JointLoss(start, cut_lanes(part, start), data.dt, free=moving(data)) for part in (seen, rest)
        )
        mechanisms = list(start.mechanisms)
        mechanisms[len(CURRENTS)] = ACurrent(g=IDLE)  # a logarithm, which cannot start at 0
        self.idle = self.loss.coordinate.vector(replace(start, mechanisms=tuple(mechanisms)))
        away = spike_mask(data.spikes.T, before=data.steps(UPSTROKE), after=data.steps(float(start.t_ref)) + 1).T
        self.variance = float(np.var(data.voltage[rest.judged & away]))
        self.unseen, self.spikes = rest, int((data.spikes & rest.judged).sum())
        self.vector, steps = self.idle, is_step_protocol(data)
        self.other = len(repeats(data)) > 1 and not steps
        # What carries over is the shape of a model: not its level to another stimulus, nor the noise of a few sweeps.
        self.moving = ("v_th",) * self.other + ("delta_v",) * steps

    def wake(self, own: list[int]) -> None:
        """Put coordinates that have had no part to where they start."""
        self.vector = self.vector.copy()
        self.vector[own] = np.where(self.vector[own] == self.idle[own], self.loss.start[own], self.vector[own])

    def fit(self, active: np.ndarray, progress: bool) -> None:
        """Let the active coordinates go."""
        self.found = finite(minimise(self.loss, self.vector, active, enough=ENOUGH, progress=progress))
        vector, names = self.found.vector, self.loss.coordinate.names
        if self.moving:
            own = np.array([names.index(name) for name in self.moving])
            vector = minimise(self.rest, vector, own, enough=ENOUGH).vector
        score = self.rest(vector)[1]
        self.score = score.levelled if self.other else score

    @property
    def least(self) -> float:
        """The least gain, nats, for which a mechanism is taken."""
        return OTHER_GAIN if self.other else LEAST_GAIN

    @property
    def worth(self) -> float:
        """What the fit is worth on the rest, nats of spikes and voltage."""
        worth = self.rest.unseen(self.score)
        return worth if np.isfinite(worth) else np.inf

    @property
    def scores(self) -> tuple[float, float]:
        """Bits per spike, and the share of the variance of the voltage."""
        bits = bits_above(self.score, self.unseen)
        left = self.score.squares / max(self.score.compared, 1.0)
        return np.nan if bits is None else bits, 1.0 - left / self.variance

    @property
    def params(self) -> AdaptiveLIFParams:
        """The parameters that were found."""
        return self.loss.params(self.found.vector)
