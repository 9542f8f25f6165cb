"""The ladder on cells whose mechanisms are known."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.fitting.data import Data
from jaxlif.fitting.ladder import COUPLING, STAGES, Ladder, Rung, climb, folds_of, full_start, representative
from jaxlif.fitting.lanes import single_precision
from tests.fitting.gif_cell import DT, TRUTH, recorded

PLAIN = replace(TRUTH, eta=(), tau_eta=(), gamma=(), tau_gamma=(), coupling=None)
FAST = jl.MembraneCurrent(a=30.0, tau=5.0, v_i=-54.0)
NAMES = [name for name, _ in STAGES]


def ladder_of(params):
    return jl.model_ladder(recorded(params, sweeps=2, duration=10_000.0), electrode=None)


@pytest.fixture(scope="module")
def plain():
    return ladder_of(PLAIN)


def test_a_plain_cell_needs_nothing(plain):
    assert [rung.taken for rung in plain.rungs] == [True] + 6 * [False]
    found = plain.params
    assert found.mechanisms == () and found.coupling is None and not any(found.eta) and not any(found.gamma)
    # 7 s of two sweeps, of which three quarters are fitted, and some 400 spikes: a few per cent.
    for name in ("tau_m", "r_m"):
        assert getattr(found, name) == pytest.approx(getattr(PLAIN, name), rel=0.05), name
    for name in ("v_rest", "v_th"):
        assert getattr(found, name) == pytest.approx(getattr(PLAIN, name), abs=0.5), name
    assert plain.sentence.startswith("a plain neuron with escape noise does for this cell; it gains nothing from curr")
    # The third and the seventh eighth of the first 7 s.
    spikes = recorded(PLAIN, sweeps=2, duration=10_000.0).spikes
    assert plain.judged == spikes[:, 3500:5250].sum() + spikes[:, 10_500:12_250].sum()


@pytest.mark.parametrize(
    ("mechanism", "needed", "gain"),
    [
        # The coupling is worth a tenth of a bit of a spike, the current several per cent of the voltage's variance.
        ({"coupling": TRUTH.coupling}, COUPLING, lambda before, after: after.held_out > before.held_out + 0.1),
        (
            {"mechanisms": (FAST,)},
            "a fast current through the membrane",
            lambda before, after: 1.0 - after.explained < 0.7 * (1.0 - before.explained),
        ),
    ],
)
def test_a_cell_needs_what_it_has(mechanism, needed, gain):
    ladder = ladder_of(replace(PLAIN, **mechanism))
    taken = [rung.name for rung in ladder.rungs[1:] if rung.taken]
    # One current may be told by two; kernels, which are tried with what is above them, are none of it.
    assert taken[0] == needed and set(taken) <= {needed, "a slow current"}
    place = NAMES.index(needed)
    assert gain(ladder.rungs[0], ladder.rungs[place])
    assert ladder.rungs[place].loss < ladder.rungs[0].loss - 4.0  # nats
    found = ladder.params
    assert (found.coupling is not None, found.eta) == (needed == COUPLING, ())
    if found.coupling:
        risen = [float(c.rise(c.begin(-52.0))) for c in (found.coupling, TRUTH.coupling)]
        assert risen[0] == pytest.approx(risen[1], abs=0.7)  # mV, where the voltage stays at -52 mV
    else:
        v = jnp.asarray(-52.0)
        steady = [float(sum(m.current(m.begin(v), v) for m in own)) for own in (found.mechanisms, (FAST,))]
        assert steady[0] == pytest.approx(steady[1], rel=0.2)  # pA, where the voltage stays at -52 mV


def test_whether_the_threshold_follows_the_voltage_may_be_said(plain):
    made = recorded(PLAIN, sweeps=2, duration=4000.0)
    data = Data.of(made, made.spikes)
    with single_precision():
        told, never = (climb(data, coupling=coupling) for coupling in (True, False))
    assert told.params.coupling is not None and told.rungs[2].name == COUPLING and told.rungs[2].taken
    assert never.params.coupling is None and COUPLING not in [rung.name for rung in never.rungs]


def test_the_sentence_names_what_is_needed_and_what_is_not():
    start = full_start(Data.of(made := recorded(PLAIN, sweeps=1, duration=2000.0), made.spikes))
    rows = [(300.0, 1.0, 0.9, True), (280.0, 1.25, 0.95, True), (281.0, 1.2, 0.951, False), (270.0, 1.5, 0.97, True)]
    ladder = Ladder(tuple(Rung(name, start, *row) for name, row in zip(NAMES, rows, strict=False)), 25)
    assert ladder.sentence == (
        "this cell needs currents and thresholds after spikes (1.25 bits, 95.0 %), an A-current (1.50 bits, 97.0 %); it"
        " gains nothing from a threshold that follows the voltage; judged on 25 unseen spikes, in bits each, and the"
        " voltage between them"
    )
    assert ladder.best is ladder.rungs[3] and len(start.mechanisms) == 4 and start.coupling is not None
    assert ladder.params.mechanisms == start.mechanisms[3:] and ladder.params.coupling is None
    alone = Ladder(ladder.rungs[:1], 25).sentence
    assert alone.startswith("a plain neuron with escape noise does for this cell; judged on 25")


@pytest.mark.parametrize(
    ("current", "firing", "expected"),
    [
        # A family of steps: each of those that fire, as long as they have too few spikes for more.
        (np.outer(np.arange(5.0) * 100.0, np.arange(4000) // 1000 % 2), [2, 3, 4], [{2}, {3}, {4}]),
        # Stimuli, each in turn, but for one without a spike.
        ("aabbc", [0, 1, 2, 3], [{0, 1}, {2, 3}]),
        # The third and the seventh eighth of one noise, of too many stimuli, and where a single one fires.
        ("aa", [0, 1], None),
        ("aab", [0, 1], None),
        (np.outer(np.arange(5.0) * 100.0, np.arange(4000) // 1000 % 2), [4], None),
        ("abcde", [0, 1, 2, 3, 4], None),
    ],
)
def test_what_judges_while_mechanisms_are_chosen(current, firing, expected):
    if isinstance(current, str):
        noise = {letter: np.random.default_rng(ord(letter)).normal(100.0, 50.0, 4000) for letter in "abcde"}
        current = np.stack([noise[letter] for letter in current])
    spikes = np.zeros(current.shape, bool)
    spikes[firing, 1500] = True
    folds = folds_of(Data(current, 0.0 * current, spikes=spikes, dt=DT))
    if expected is None:
        left = np.zeros(current.shape, bool)
        left[:, 1000:1500] = left[:, 3000:3500] = True
        (fitted,) = folds
        np.testing.assert_array_equal(fitted, ~left)
    else:
        assert [set(np.flatnonzero(~fold.any(axis=1))) for fold in folds] == expected
        assert all(fold.all(axis=1).sum() + len(held) == len(fold) for fold, held in zip(folds, expected, strict=True))


@pytest.mark.parametrize(("fire", "expected"), [(4, [{3}, {4}]), (7, [{3, 5, 7}])])
def test_of_a_family_the_ends_judge_nothing(fire, expected):
    current = np.outer(np.arange(2 + fire) * 100.0, np.arange(4000) // 1000 % 2)
    spikes = np.zeros(current.shape, bool)
    for sweep in range(fire):
        spikes[2 + sweep, 1100 : 1100 + 10 * (6 + sweep) : 10] = True
    folds = folds_of(Data(current, 0.0 * current, spikes=spikes, dt=DT))
    assert [set(np.flatnonzero(~fold.any(axis=1))) for fold in folds] == expected


@pytest.mark.parametrize(
    ("stimuli", "chosen"), [("a" * 7, [0, 3, 6]), ("abab", [0, 1]), ("aaabbb", [0, 3]), ("abcd", [0, 1, 2, 3])]
)
def test_of_many_repeats_some_of_each_stimulus_stand_for_all(stimuli, chosen):
    noise = {letter: np.random.default_rng(ord(letter)).normal(100.0, 50.0, 400) for letter in "abcd"}
    current = np.stack([noise[letter] for letter in stimuli])
    data = Data(current, np.arange(len(current))[:, None] + 0.0 * current, spikes=current > 1e9, dt=DT)
    assert representative(data).voltage[:, 0].tolist() == chosen


@pytest.mark.parametrize("count", [2, 9])
def test_a_few_unseen_spikes_decide_nothing(count):
    made = recorded(PLAIN, sweeps=2, duration=4000.0)
    unseen = np.zeros(made.spikes.shape[1], bool)
    unseen[2000:3000] = unseen[6000:7000] = True
    spikes = made.spikes & ~unseen
    spikes[0, 2000 : 2000 + 20 * count : 20] = True
    with pytest.raises(ValueError, match=f"^{count} spikes are left to judge mechanisms by: 10 are needed$"):
        jl.model_ladder(replace(made, spikes=spikes), electrode=None, window=(0.0, 4000.0))
    with single_precision():
        plain, told = (climb(Data.of(made, spikes), coupling=coupling) for coupling in (None, True))
    assert plain.sentence == f"{count} unseen spikes, of 10 needed, say nothing about further mechanisms"
    # What any cell has, and what was asked for.
    assert [rung.name for rung in plain.rungs if rung.taken] == NAMES[:2]
    assert [rung.name for rung in told.rungs if rung.taken] == NAMES[:3] and told.params.coupling is not None


def test_a_family_with_a_single_step_that_fires_is_judged_within_it():
    current = np.outer([0.0, 20.0, 40.0, 250.0], np.arange(4000) // 1000 % 2)
    inputs = jl.escape_inputs(jax.random.key(0), jnp.asarray(current.T))
    _, output = jl.simulate(jl.EscapeNoise(jl.AdaptiveLIF(dt=DT)), PLAIN, inputs)
    spikes = np.asarray(output.spikes).T > 0
    assert spikes[3].any() and not spikes[:3].any()
    with single_precision():
        ladder = climb(Data(current, np.asarray(output.v).T, spikes=spikes, dt=DT))
    # The third and the seventh eighth of the time: the first 250 ms of the two halves in which the step is on.
    assert ladder.judged == spikes[:, 1000:1500].sum() + spikes[:, 3000:3500].sum() > 5
