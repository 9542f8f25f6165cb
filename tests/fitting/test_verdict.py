"""The verdict on a fit: from its scores, its free run and what is odd about its data; and never without evidence."""

from dataclasses import replace

import numpy as np
import pytest

import jaxlif as jl
from jaxlif.fitting.data import Data, Drift
from jaxlif.fitting.notes import at_bounds, protocol_doubts, score_notes, spontaneous, unlikely_membrane
from jaxlif.fitting.scores import spike_scores
from jaxlif.fitting.step_family import Deflection, rectification
from jaxlif.fitting.verdict import RULES, worst_first
from jaxlif.neurons.leaky import LeakyParams
from jaxlif.recordings import Electrode
from jaxlif.recordings.notes import notes_on
from jaxlif.recordings.spikes import spike_notes

COUNTS = {"spikes_data": 100, "spikes_model": 110.0, "rate_data": 10.0, "rate_model": 11.0}
GOOD = COUNTS | {"md_star": 0.85, "voltage_variance_explained": 0.93}


def fit(test=GOOD, warnings=(), **changes):
    """A fit of a neuron with these scores on what was held out."""
    scores = {"train": GOOD} | ({} if test is None else {"test": dict(test)})
    data = {"name": "", "sha256": "", "current_source": "recorded", "sweeps": 4}
    given = {"model": "gif", "params": jl.LIFParams(), "scores": scores, "bounds": {}, "window": (0.0, 700.0)}
    given |= {"protocol": "fluctuating", "spike_rule": jl.SpikeRule(), "spike_cut": (0.0, 0.0), "seed": 0}
    return jl.RecordingFit(**given | {"data": data, "warnings": warnings} | changes)


@pytest.mark.parametrize(
    ("scores", "word", "said"),
    [
        ({}, "good", "good: spike times (Md* 0.85), spike counts (11 Hz where the cell fires at 10 Hz)"),
        ({"md_star": 0.5}, "usable", "usable for spike times (Md* 0.50)"),
        ({"md_star": 0.2}, "usable", "; not for spike times (Md* 0.20)"),
        ({"md_star": 0.2, "spikes_model": 300.0}, "do not use", "do not use: wrong in spike times (Md* 0.20)"),
        ({"md_star": None, "bits_per_spike": 2.0}, "good", "2.00 bits per spike"),
        ({"md_star": None, "coincidence_factor": 0.5, "bits_per_spike": None}, "usable", "spike times (Γ 0.50)"),
        ({"voltage_variance_explained": 0.3}, "usable", "not for voltage (30 % of its variance)"),
        ({"voltage_variance_explained": None}, "good", "good: "),
        # As many as the cell has, at other times: the rate alone is no evidence of anything but itself.
        ({"md_star": None}, "good", "good: spike counts"),
    ],
)
def test_the_word_follows_the_scores(scores, word, said):
    found = fit(GOOD | scores).verdict
    assert found.word == word and said in found.sentence and found.sentence.startswith(word), found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.score)
def test_the_limits_of_a_rule_count_as_reached(rule):
    better = 1e-9 * (1 if rule.good > rule.usable else -1)
    assert [rule.worth(x) for x in (rule.good, rule.good - better, rule.usable, rule.usable - better)] == [2, 1, 1, 0]
    assert "{0" in rule.text or rule.purpose == "spike counts"


@pytest.mark.parametrize(
    ("test", "word", "said"),
    [
        (None, "no verdict", "nothing was held out"),
        (
            {"spikes_data": 0, "spikes_model": 0.0, "rate_data": 0.0, "rate_model": 0.0},
            "no verdict",
            "no spike of the cell",
        ),
        (
            {"spikes_data": 0, "spikes_model": 4.0, "rate_data": 0.0, "rate_model": 1.0},
            "no verdict",
            "no spike of the cell",
        ),
        ({"spikes_data": 6, "spikes_model": 9.0, "rate_data": 1.0, "rate_model": 1.0}, "no verdict", "only 6 spikes"),
        ({"spikes_data": 5, "spikes_model": 0.0, "rate_data": 1.5, "rate_model": 0.0}, "do not use", "0 Hz where"),
        # Silence of the cell is evidence against a model that fires all the time.
        ({"spikes_data": 0, "spikes_model": 90.0, "rate_data": 0.0, "rate_model": 50.0}, "do not use", "50 Hz where"),
        ({"spikes_data": 60, "spikes_model": 0.0, "rate_data": 5.0, "rate_model": 0.0}, "do not use", "0 Hz where"),
    ],
)
def test_no_verdict_without_spikes_to_judge_by(test, word, said):
    """Md* of a silent window is not defined; a voltage that is described well does not stand in for it."""
    scores = None if test is None else GOOD | test | {"md_star": None}
    found = fit(scores).verdict
    assert found.word == word and said in found.sentence, found


@pytest.mark.parametrize(
    ("error", "largest", "word"),
    [(1.9, 20.0, "good"), (1.9, 15.0, "usable"), (6.0, 20.0, "do not use"), (9.0, 100.0, "good")],
)
def test_an_f_i_curve_is_judged_by_what_it_predicts_of_other_currents(error, largest, word):
    """Over 500 ms an error of 2 Hz is one spike: good where a step has ten or fewer, else a tenth of the largest."""
    curve = {"current_pA": [0.0, 1.0], "rate_Hz": [0.0, largest], "epoch_ms": [100.0, 600.0]}
    scores = {
        "train": COUNTS,
        "f_i": {"rmse": 0.0, "rmse_held_out": error},
        "membrane": {"voltage_variance_explained": 0.9},
    }
    found = fit(scores=scores, curve=curve, model="lif").verdict
    assert found.word == ("good" if error / max(largest, 20.0) <= 0.1 else word), found


STEP = {"spikes_per_step": 9.0, "spikes_per_step_rmse": 0.7, "spikes_per_step_rmse_to_20": 0.7, "latency_error": 3.0}


@pytest.mark.parametrize(
    ("scores", "word"),
    [
        ({}, "good"),
        ({"spikes_per_step_rmse_to_20": 2.0}, "usable"),
        ({"spikes_per_step_share_above_20": 0.2}, "usable"),
        ({"spikes_per_step_rmse_to_20": 4.0}, "do not use"),
        ({"latency_error": 30.0}, "usable"),
        ({"silent_steps": 0.5}, "usable"),
    ],
)
def test_steps_are_judged_by_their_spikes(scores, word):
    assert fit(COUNTS | STEP | scores | {"bits_per_spike": None}).verdict.word == word


def test_silent_steps_judge_no_spikes_and_a_membrane_is_judged_by_its_voltage():
    silent = {"spikes_data": 0, "spikes_model": 0.0, "spikes_per_step": 0.0, "spikes_per_step_rmse": 0.0}
    silent |= {"silent_steps": 1.0, "spikes_per_step_rmse_to_20": 0.0, "voltage_variance_explained": 0.9}
    assert fit(silent).verdict.sentence.startswith("no verdict: no spike of the cell is in what was held out")
    # One that fires there is wrong.
    firing = {"spikes_model": 60.0, "spikes_per_step_rmse": 6.0, "spikes_per_step_rmse_to_20": 6.0, "silent_steps": 0.0}
    assert fit(silent | firing).verdict.word == "do not use"
    assert fit(silent, model="passive", params=LeakyParams(v_rest=-70.0)).verdict == (
        "good",
        "good: voltage (90 % of its variance)",
    )


def test_a_free_run_that_goes_astray_decides():
    note = "do not use this model: run freely, it fires at 0 Hz where the cell fires at 9 Hz"
    found = fit(warnings=("something else", note)).verdict
    assert found == ("do not use", "do not use: run freely, it fires at 0 Hz where the cell fires at 9 Hz")
    assert worst_first(("something else", note)) == (note, "something else")
    # What may be the reason stands beside it.
    found = fit(warnings=(note, *GRAVE["tau_m = 0.1"]())).verdict
    assert found.word == "do not use" and found.sentence.endswith("; careful: tau_m = 0.1 ms")


def steps(levels, holding=0.0):
    """Steps from 200 to 400 of 600 ms, on a holding current that a sweep may have of its own."""
    current = np.zeros((len(levels), 1200)) + np.broadcast_to(holding, len(levels))[:, None]
    current[:, 400:800] += np.asarray(levels)[:, None]
    return Data(current, -70.0 + 0.1 * current, spikes=np.zeros(current.shape, bool), dt=0.5)


def in_block():
    """Steps of 200 ms that evoke 0, 3, 6 and 1 spikes."""
    data = steps([50.0, 100.0, 150.0, 200.0])
    for sweep, count in enumerate((0, 3, 6, 1)):
        data.spikes[sweep, 420 : 420 + 20 * count : 20] = True
    return data


def drifting():
    """Steps from rests of -70, -67 and -64 mV."""
    data = steps([50.0, 100.0, 150.0])
    return replace(data, voltage=data.voltage + np.array([[0.0], [3.0], [6.0]]))


def peaks(heights):
    """A rest with spikes of 1 ms, each of its own height, mV."""
    voltage = np.full((1, 20_000), -70.0) + np.random.default_rng(0).normal(0.0, 0.1, (1, 20_000))
    for place, height in zip(range(500, 20_000, 500), heights, strict=False):
        voltage[0, place : place + 10] += height * np.array([0.2, 0.5, 0.8, 1.0, 0.9, 0.7, 0.5, 0.3, 0.2, 0.1])
    return jl.Recording(np.sin(np.arange(20_000.0)), voltage, dt=0.1)


def copied():
    """Three sweeps of noise, the second stored as the first once more."""
    noise = np.random.default_rng(0).normal(-60.0, 0.2, (3, 900))
    return jl.Recording(np.zeros((3, 900)), noise[[0, 0, 2]], dt=0.1)


def on_an_electrode():
    """Steps of 100 pA into 50 MΩ that nothing charges."""
    data = steps([100.0, 100.0, 100.0])
    return jl.Recording(data.current, -70.0 + 0.05 * data.current + 0.001 * np.arange(3.0)[:, None], dt=0.5)


def shifted():
    """Steps every 50 ms into a membrane of 15 ms, stored 4 ms too early."""
    current = 100.0 * (np.arange(20_000) // 500 % 2)
    voltage = np.full(20_000, -70.0)
    for n in range(19_999):
        voltage[n + 1] = voltage[n] + 0.1 / 15.0 * (0.15 * current[n] - 70.0 - voltage[n])
    return jl.Recording(np.roll(current, -40)[None], voltage[None], dt=0.1)


GRAVE = {
    "count depends on the rule": lambda: spike_notes(peaks(np.tile([90.0, 40.0], 30)), jl.SpikeRule()),
    "rectifies": lambda: rectification([Deflection(0, -50.0, 0.1), Deflection(1, -25.0, 0.3)], 0.3),
    "fires without current": lambda: spontaneous(jl.LIFParams(v_rest=-50.0, v_th=-55.0)),
    "r_m = 50": lambda: unlikely_membrane(jl.LIFParams(r_m=50.0)),
    "tau_m = 0.1": lambda: unlikely_membrane(jl.LIFParams(tau_m=0.1, r_m=0.01)),
    "lies at the end of its bounds": lambda: at_bounds(jl.LIFParams(tau_m=500.0), {"tau_m": (0.5, 500.0)}),
    "holding current differs by 30 pA": lambda: protocol_doubts(steps([50.0, 100.0, 150.0], [0.0, 30.0, 10.0]), 0.1),
    "sweep 1, held out, is the copy": lambda: notes_on(copied(), np.zeros((3, 900), bool), held=[1]),
    "jumps by 5 mV": lambda: notes_on(on_an_electrode(), np.zeros((3, 1200), bool)),
    "comes 4 ms after the current": lambda: notes_on(shifted(), np.zeros((1, 20_000), bool)),
    "the rates fall from 30 Hz at 150 pA to 5 Hz": lambda: protocol_doubts(in_block(), 0.1, adaptive=True),
    "the rest moves by 6 mV": lambda: protocol_doubts(drifting(), 0.1, adaptive=True),
    "one level": lambda: protocol_doubts(steps([100.0, 100.0, 100.0]), 0.1),
    "explains only 30 %": lambda: score_notes(steps([50.0]), {"train": COUNTS | {"voltage_variance_explained": 0.3}}),
}


@pytest.mark.parametrize("said", GRAVE)
def test_what_is_odd_is_said_in_the_verdict(said):
    """By the notes as they are written: one whose words changed would be lost here."""
    notes = GRAVE[said]()
    found = fit(warnings=notes).verdict
    assert found.word == "usable" and said in found.sentence.partition("careful: ")[2], (notes, found)
    assert said in worst_first(("a", *notes))[0]


def test_a_count_that_hardly_depends_on_the_rule_leaves_a_verdict_as_it_is():
    """One small spike of 39; and of several files that are odd alike it is said once."""
    (note,) = spike_notes(peaks([90.0] * 38 + [40.0]), jl.SpikeRule())
    assert note.startswith("the count depends on the rule") and fit(warnings=(note,)).verdict.word == "good"
    (note,) = spike_notes(peaks(np.tile([90.0, 40.0], 30)), jl.SpikeRule())
    assert fit(warnings=(note, f"test = b.abf: {note}")).verdict.sentence.count("depends on the rule") == 1


def test_a_family_of_steps_without_oddities_has_no_doubts():
    assert protocol_doubts(steps([50.0, 100.0, 150.0], [0.0, 2.0, 1.0]), 0.9) == ()
    stairs = np.repeat([0.0, 50.0, 0.0, 100.0, 0.0, 150.0], 400)[None]
    assert protocol_doubts(Data(stairs, -70.0 + 0.1 * stairs, spikes=np.zeros(stairs.shape, bool), dt=0.5), 0.1) == ()
    pulses = np.repeat([0.0, -50.0, 0.0, 100.0, 0.0, 102.0], 400)[None]  # one of calibration, and one level
    (note,) = protocol_doubts(Data(pulses, -70.0 + 0.1 * pulses, spikes=np.zeros(pulses.shape, bool), dt=0.5), 0.1)
    assert note.startswith("the current has one level")
    noise = np.random.default_rng(0).normal(size=(2, 1200))
    assert protocol_doubts(replace(steps([1.0, 2.0]), current=noise), 0.1) == ()
    # What the recipe of steps deals with it says itself; and rests that were measured are no doubt.
    assert protocol_doubts(drifting(), 0.1) == protocol_doubts(in_block(), 0.1) == ()
    measured = replace(drifting(), v_rest=-67.0, drift=Drift.of_rest(np.array([-70.0, -67.0, -64.0]), -67.0))
    assert protocol_doubts(measured, 0.1, adaptive=True) == ()


def electrode(resistance):
    return Electrode(np.full(2, 0.5 * resistance), 0.1, "recording")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"params": jl.LIFParams(v_rest=-15.0, v_th=0.0, v_reset=-20.0)}, "careful: a rest of -15 mV"),
        ({"electrodes": (((0,), electrode(0.01)), ((1,), electrode(0.2)))}, "careful: electrodes of 10 to 200 MΩ"),
        ({"electrodes": (((0,), electrode(-0.01)),)}, "careful: an electrode of -10 MΩ"),
    ],
)
def test_odd_values_are_said(changes, said):
    found = fit(**changes).verdict
    assert found.word == "usable" and said in found.sentence, found


def test_what_a_score_does_not_show_is_said_beside_it():
    data = {"name": "", "sha256": "", "current_source": "commanded", "sweeps": 1}
    found = fit(data=data, undetermined=("tau_m", "t_ref")).verdict
    assert found.word == "good" and found.sentence.endswith(
        "; not determined: tau_m, t_ref; the current is the command, not a measurement"
    )


def test_the_test_file_judges_before_held_out_time():
    found = fit(scores={"train": GOOD, "test": GOOD, "test_file": GOOD | {"md_star": 0.45}}).verdict
    assert found.word == "usable" and "Md* 0.45" in found.sentence


def test_spikes_are_counted_over_sweeps_and_a_models_over_its_repeats():
    spikes = np.zeros((2, 400), bool)
    spikes[0, ::100], spikes[1, ::200] = True, True
    recording = jl.Recording(np.arange(800.0).reshape(2, 400), dt=1.0)
    scores = spike_scores(recording, spikes, np.stack([spikes, spikes, ~spikes]))
    assert (scores["spikes_data"], scores["spikes_model"]) == (6, (6 + 6 + 794) / 3)


def test_notes_that_differ_in_their_numbers_alone_are_one():
    """Three or more; and why this model comes before what is grave."""
    many = tuple(f"no electrode of {n} sweeps: {-1.5 * n:g} MΩ" for n in (1, 2, 3))
    notes = (*many, "the membrane rectifies: x", "twice 1", "twice 2", "model: gif rather than lif")
    assert worst_first(notes) == (
        "model: gif rather than lif",
        "the membrane rectifies: x",
        "no electrode of 1 sweeps: -1.5 MΩ (2 more like this)",
        "twice 1",
        "twice 2",
    )
    grave = tuple(
        f"no electrode was taken off the voltage of 1 sweeps: its resistance was estimated as -{n} MΩ: x"
        for n in range(9)
    )
    assert fit(warnings=grave).verdict.sentence.count("estimated") == 1
