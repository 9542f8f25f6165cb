"""The ladder on cells whose mechanisms are known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

import jaxlif as jl
from jaxlif.fitting import ladder as ladders
from jaxlif.fitting.data import Data
from jaxlif.fitting.gif_recipe import Candidate, judged_spikes, verdict
from jaxlif.fitting.joint_likelihood import arranged, evaluate, joint_loss
from jaxlif.fitting.ladder import Ladder, Rung
from jaxlif.fitting.optimise import believable
from tests.fitting.gif_cell import DT, TRUTH, recorded


@pytest.mark.parametrize(
    ("params", "needed", "idle"),
    [
        (TRUTH, ["spike-triggered currents", "a threshold that follows the voltage"], []),
        (
            replace(TRUTH, eta=(), tau_eta=(), coupling=None, gamma=(8.0,)),
            ["a threshold that moves at spikes"],
            ["a threshold that follows the voltage"],
        ),
    ],
)
def test_the_rungs_of_a_known_cell(params, needed, idle):
    recording = recorded(params)
    ladder = jl.model_ladder(recording, electrode=None)
    gains = {rung.name: rung.gain for rung in ladder.rungs}
    # Some 700 held-out spikes: 0.03 bits is their noise, and what the cell has brings far more in some rung.
    for name in idle:
        assert gains[name] < 0.03, gains
    if len(needed) > 1:
        assert all(gains[name] > 0.03 for name in needed), gains
    else:
        # Currents stand in for a moving threshold; together they bring what it is worth.
        assert gains["spike-triggered currents"] + gains[needed[0]] > 0.1, gains
    assert not any(rung.failed for rung in ladder.rungs) and ladder.judged > 100


def test_the_sentence_names_what_is_needed_and_what_is_not():
    rungs = (Rung("LIF", TRUTH, 1.0, 0.0), Rung("currents", TRUTH, 1.5, 0.5), Rung("more", TRUTH, 1.5, 0.0))
    assert Ladder(rungs).sentence == "this cell needs currents (+0.50 bits); it gains nothing from more"
    assert Ladder(rungs[:1]).sentence == "a plain neuron with escape noise does for this cell"
    lost = Ladder((*rungs[:2], Rung("more", TRUTH, -0.1, -1.6, failed=True)), judged=25).sentence
    assert lost == (
        "this cell needs currents (+0.50 bits); the fit failed with more, of which nothing is known;"
        " only 25 spikes judge: 0.2 bits either way are chance"
    )


def test_a_gain_is_counted_from_the_best_rung_below_and_a_collapse_is_a_failure(monkeypatch):
    held = [1.5, -0.1, 1.4, 1.6, 3.0]
    monkeypatch.setattr(ladders, "_levels", lambda *_: ((str(n), Candidate(TRUTH, 0.0, x)) for n, x in enumerate(held)))
    monkeypatch.setattr(ladders, "regress", lambda *_, **__: TRUTH)
    spikes = np.zeros((1, 1000), bool)
    spikes[0, 5::20] = True
    rungs = ladders.fit_ladder(Data(spikes * 0.0, spikes * 0.0, spikes=spikes, dt=DT)).rungs
    np.testing.assert_allclose([rung.gain for rung in rungs], [0.0, -1.6, -0.1, 0.1, 1.4])
    assert [rung.failed for rung in rungs] == [False, True, False, False, False]


@pytest.mark.parametrize(
    ("held_out", "words"),
    [
        ((1.5, 2.0), "changes held-out spikes by +0.5 bits each: taken"),
        ((2.0, 1.5), "changes held-out spikes by -0.5 bits each: left away"),
        ((-1100.0, 2.0), "is judged by a fit without it that went astray (-1.1e+03 bits per held-out spike): taken"),
        ((2.0, -30.0), "is judged by a fit with it that went astray (-30 bits per held-out spike): left away"),
    ],
)
def test_a_fit_that_went_astray_is_no_measure_of_a_gain(held_out, words):
    plain, coupled = (Candidate(TRUTH, 0.0, x) for x in held_out)
    best, (note,) = verdict(plain, coupled)
    assert note == f"a threshold that follows the voltage {words}"
    assert best is (coupled if words.endswith("taken") else plain)


@pytest.mark.parametrize(
    ("steps", "judged"),
    [
        (range(100, 1000, 10), 20),  # the last fifth of the time has 20 spikes in each of two sweeps
        (range(100, 600, 10), 10),  # it has none: the last fifth of the spikes
        (range(100, 200, 10), 2),
        ([300], 0),  # all at once: none is left to fit
    ],
)
def test_what_judges_has_spikes_or_there_is_no_verdict(steps, judged):
    spikes = np.zeros((2, 1000), bool)
    spikes[:, list(steps)] = True
    traces = Data(spikes * 0.0, spikes * 0.0, spikes=spikes, dt=DT)
    assert judged_spikes(traces) == 2 * judged
    if judged < 5:
        with pytest.raises(ValueError, match=f"^{2 * judged} spikes are left to judge by"):
            ladders.fit_ladder(traces)


@pytest.mark.parametrize("v_th", [-90.0, -20.0])
def test_a_start_that_is_far_off_is_brought_to_the_recorded_number_of_spikes(v_th):
    """Against a search of the two parameters by SciPy, from the truth."""
    made = recorded(TRUTH, sweeps=1, duration=4000.0)
    parts = arranged(Data.of(made, made.spikes), 4.0, "float64")
    loss, samples = joint_loss(TRUTH, parts, DT)
    assert believable(loss, TRUTH, samples) == TRUTH
    found = believable(loss, replace(TRUTH, v_th=v_th), samples)

    def at(x):
        moved = replace(TRUTH, v_th=float(x[0]), delta_v=float(np.exp(x[1])))
        return evaluate(loss, loss.vector(moved), samples)[0]

    best = minimize(at, [TRUTH.v_th, 0.0], method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-3}).fun
    # The widths tried are a factor of 2 apart: the truth, 1 mV, is one of them. Far off, the loss is in the thousands.
    assert loss_at(loss, found, samples) < best + 3.0 < loss_at(loss, replace(TRUTH, v_th=v_th), samples) - 300.0


def loss_at(loss, params, samples):
    return evaluate(loss, loss.vector(params), samples)[0]
