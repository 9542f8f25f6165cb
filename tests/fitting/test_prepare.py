"""What a recording becomes before a fit: the sweeps and the time to fit, those that judge, and where each rests."""

import numpy as np
import pytest

import jaxlif as jl
from jaxlif.fitting.data import Drift
from jaxlif.fitting.prepare import prepare

DT = 0.5


@pytest.fixture(scope="module")
def recording():
    """Four trials of one noise after 200 ms of rest, 1 mV apart; the last is the first, stored again."""
    rng = np.random.default_rng(0)
    current = np.tile(np.where(np.arange(2000) < 400, 0.0, rng.normal(200.0, 100.0, 2000)), (4, 1))
    decay, v, rows = np.exp(-DT / 20.0), np.full(4, -70.0), []
    for column in current.T:
        v = decay * v + (1.0 - decay) * (-70.0 + 0.1 * column)
        rows.append(v)
    voltage = np.stack(rows, axis=1) + np.array([[-1.0], [0.0], [1.0], [-1.0]])
    voltage += 0.01 * rng.standard_normal(voltage.shape)
    voltage[:, 500::100] = 20.0
    voltage[3] = voltage[0]
    return jl.Recording(current, voltage, dt=DT, stimulus="noise")


def test_of_two_copies_of_a_trial_the_first_is_fitted_and_rests_are_those_of_what_is(recording):
    case = prepare(recording, "gif", electrode=None)
    assert case.kept.tolist() == [0, 1, 2] and case.held.size == 0 and case.refit
    # 100 ms of 0.01 mV noise, 200 samples: 0.001 mV, ten of them.
    assert case.data.v_rest == pytest.approx(-70.0, abs=0.01)
    np.testing.assert_allclose(case.data.terms.offset, [-1.0, 0.0, 1.0, -1.0], atol=0.01)
    assert any("1 of 4 sweeps have the voltage of an earlier one" in note for note in case.notes)


def test_what_is_not_fitted_judges(recording):
    case = prepare(recording, "gif", electrode=None)
    assert (case.window, case.rest) == ((0.0, 700.0), (700.0, 1000.0))
    early = prepare(recording, "gif", electrode=None, window=(600.0, 1000.0))
    assert (early.window, early.rest, early.refit) == ((600.0, 1000.0), (0.0, 600.0), False)
    assert prepare(recording, "gif", electrode=None, window=(50.0, 950.0)).rest is None, "both ends are short"
    held = prepare(recording, "gif", electrode=None, held_out="sweep:2")
    assert held.held.tolist() == [2] and held.kept.tolist() == [0, 1] and held.window == (0.0, 1000.0)
    assert held.data.v_rest == pytest.approx(-70.5, abs=0.01), "of the sweeps that are fitted"


def test_a_plain_neuron_has_one_rest_and_no_electrode_of_its_own(recording):
    case = prepare(recording, "lif")
    assert case.data.v_rest is None and case.data.drift is None and case.electrodes == ()
    assert any("one v_rest stands for all" in note for note in case.notes)


def test_terms_that_were_fitted_stand_beside_those_that_were_measured(recording):
    case = prepare(recording, "gif", electrode=None, held_out="sweep:0,3")
    known = case.with_drift(Drift(np.array([0.25, -0.25]), np.array([1.1, 0.9]))).data.terms
    assert case.kept.tolist() == [1, 2]
    assert known.offset[1:3].tolist() == [0.25, -0.25] and known.gain.tolist() == [1.0, 1.1, 0.9, 1.0]
    assert known.offset[0] == pytest.approx(-1.5, abs=0.01)


@pytest.mark.parametrize(
    ("window", "words"),
    [
        ((0.0, 1001.0), "window = 0 to 1001 ms: it must lie inside the recording, 0 to 1000 ms"),
        ((500.0, 500.0), "window = 500 to 500 ms"),
        ((1.0, 2.0, 3.0), r"window = \(1.0, 2.0, 3.0\): window must be a pair"),
        ("all", "window = 'all': window must be"),
    ],
)
def test_a_window_outside_the_recording_is_refused(recording, window, words):
    with pytest.raises(ValueError, match=words):
        prepare(recording, "lif", window=window)


def steps(levels, fires):
    """Steps of 300 ms after 100 ms, with a spike where they fire, in a voltage with noise."""
    current, spikes = np.zeros((len(levels), 1000)), np.zeros((len(levels), 1000), bool)
    current[:, 200:800] = np.reshape(levels, (-1, 1))
    spikes[np.flatnonzero(fires), 500] = True
    voltage = -70.0 + 0.1 * current + np.random.default_rng(0).standard_normal(current.shape)
    return jl.Recording(current, voltage, dt=DT, spikes=spikes)


@pytest.mark.parametrize("model", ["lif", "gif", "deterministic-gif"])
def test_a_family_of_steps_is_judged_on_every_second_sweep_of_either_kind(model):
    family = steps(levels := [300, 60, -40, 240, 20, 180, 120, -20], [level > 100 for level in levels])
    case = prepare(family, model, electrode=None)
    # By current: silent -40, -20, 20, 60; firing 120, 180, 240, 300.
    assert case.held.tolist() == [0, 1, 5, 7] and case.kept.tolist() == [2, 3, 4, 6]
    assert case.window == (0.0, 500.0) and case.refit and case.complete().kept.tolist() == [*range(8)]
    asked = prepare(family, model, electrode=None, held_out="sweep:3")
    assert asked.held.tolist() == [3] and not asked.refit


def test_copies_of_a_held_trial_are_not_fitted_and_too_few_sweeps_hold_none_out():
    family = steps([-20.0, 20.0, 120.0, 180.0, 240.0], [False, False, True, True, True])
    case = prepare(family.select([0, 1, 2, 3, 4, 3, 2]), "lif")
    assert case.held.tolist() == [3, 5] and case.kept.tolist() == [0, 1, 2, 4]
    assert prepare(family.select([0, 2, 3]), "lif").held.size == 0
