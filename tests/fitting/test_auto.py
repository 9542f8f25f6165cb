"""Which model is handed out where nobody chose one."""

from dataclasses import replace

import pytest

import jaxlif as jl
from jaxlif.fitting.fit_recording import choose_model, has_mechanisms
from tests.fitting.gif_cell import TRUTH

PLAIN = jl.AdaptiveLIFParams()


def made(model, params, rmse=None):
    """Return a fit with as much as the choice looks at."""
    scores = {} if rmse is None else {"test": {"spikes_per_step_rmse": rmse, "spikes_per_step_rmse_to_20": rmse}}
    return jl.RecordingFit(
        model=model, params=params, scores=scores, bounds={}, window=(0.0, 1.0), protocol="fluctuating",
        spike_rule=jl.SpikeRule(), spike_cut=(5.0, 4.5), data={}, seed=0,
    )  # fmt: skip


def unheld(model, params):
    """Return a fit to a family of steps that is too small for a test."""
    found = made(model, params, 0.5)
    return replace(found, scores={"train": found.scores["test"]})


def chosen(**fits):
    def _fit(model):
        found = fits[model]
        if isinstance(found, Exception):
            raise found
        return found

    return choose_model(_fit)


LIF, GIF = made("lif", jl.LIFParams()), made("gif", TRUTH)
STEPS = {model: made(model, TRUTH, rmse) for model, rmse in (("lif", 1.6), ("gif", 0.8))}


@pytest.mark.parametrize(
    ("fits", "model", "words"),
    [
        ({"lif": LIF, "gif": GIF}, "gif", "for what it gains on unseen data"),
        ({"lif": LIF, "gif": replace(GIF, params=PLAIN)}, "lif", "no further mechanism gains on unseen data"),
        (STEPS, "gif", "gif rather than lif: 0.8 (8 %) spikes off in steps neither saw, not 1.6 (16 %)"),
        ({"lif": STEPS["lif"], "gif": made("gif", TRUTH, 2.0)}, "lif", "not 2 (20 %)"),
        (
            {"lif": made("lif", jl.LIFParams(), 0.0), "gif": made("gif", TRUTH, 0.0)},
            "lif",
            "lif rather than gif: 0 (0 %)",
        ),
        ({"lif": unheld("lif", jl.LIFParams()), "gif": unheld("gif", TRUTH)}, "lif", "too few steps to hold any out"),
        ({"lif": LIF, "gif": ValueError("voltage does not relax")}, "lif", "(voltage does not relax)"),
        ({"lif": ValueError("no"), "gif": STEPS["gif"]}, "gif", "as no other model could be fitted (no)"),
    ],
)
def test_the_better_on_what_neither_saw_is_handed_out_and_says_why(fits, model, words):
    found = chosen(**fits)
    assert found.model == model and found.warnings[-1].startswith("model: ") and words in found.warnings[-1]


@pytest.mark.parametrize("seen", [{}, {"spikes_per_step_rmse": 9.0, "spikes_per_step_rmse_to_20": 9.0}])
def test_a_test_file_chooses_nothing(seen):
    """Neither one of noise, which knows no steps, nor one of steps in which the gif is the worse."""
    tested = {m: replace(f, scores={**f.scores, "test_file": seen if m == "gif" else {}}) for m, f in STEPS.items()}
    assert chosen(**tested).model == "gif" and "0.8 (8 %) spikes off" in chosen(**tested).warnings[-1]


def test_where_nothing_can_be_fitted_the_plain_neuron_says_why():
    with pytest.raises(ValueError, match="no spikes"):
        chosen(lif=ValueError("voltage has no spikes"), gif=ValueError("something else"))


def test_a_neuron_with_any_mechanism_is_no_plain_one():
    assert not has_mechanisms(PLAIN)
    for more in (
        {"eta": (1.0,), "tau_eta": (9.0,)},
        {"coupling": jl.VoltageCoupling()},
        {"mechanisms": (jl.ACurrent(),)},
    ):
        assert has_mechanisms(replace(PLAIN, **more))
