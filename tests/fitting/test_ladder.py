"""The ladder on cells whose mechanisms are known."""

from dataclasses import replace

import pytest

import jaxlif as jl
from jaxlif.fitting.ladder import Ladder, Rung
from tests.fitting.test_gif import TRUTH, recorded


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
    ladder = jl.model_ladder(recorded(params), electrode=None)
    gains = {rung.name: rung.gain for rung in ladder.rungs}
    # Some 700 held-out spikes: 0.03 bits is their noise, and what the cell has brings far more in some rung.
    for name in idle:
        assert gains[name] < 0.03, gains
    if len(needed) > 1:
        assert all(gains[name] > 0.03 for name in needed), gains
    else:
        # Currents stand in for a moving threshold; together they bring what it is worth.
        assert gains["spike-triggered currents"] + gains[needed[0]] > 0.1, gains


def test_the_sentence_names_what_is_needed_and_what_is_not():
    rungs = (Rung("LIF", TRUTH, 1.0, 0.0), Rung("currents", TRUTH, 1.5, 0.5), Rung("more", TRUTH, 1.5, 0.0))
    assert Ladder(rungs, 0.02).sentence == "this cell needs currents (+0.50 bits); it gains nothing from more"
    assert Ladder(rungs[:1], 0.02).sentence == "a plain neuron with escape noise does for this cell"
