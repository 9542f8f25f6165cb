"""What a fit hands out: its neuron and parameters run as they are, and a model has its old name too."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import jaxlif as jl
from tests.fitting.test_fit_file import PLAIN, fits

DT = 0.5
ADAPTIVE = jl.AdaptiveLIFParams(**vars(PLAIN), eta=(40.0,), tau_eta=(20.0,), gamma=(3.0,), tau_gamma=(30.0,))


def fit_of(model, params):
    """Return a fit without terms of single sweeps, as it would be of a recording at 0.5 ms."""
    known = fits()["lif"]
    return replace(known, model=model, params=params, curve={}, data=dict(known.data) | {"dt_ms": DT, "sweeps": 2})


@pytest.mark.parametrize(
    ("model", "params", "kind"),
    [
        ("lif", PLAIN, jl.LIF),
        ("deterministic-gif", ADAPTIVE, jl.AdaptiveLIF),
        ("passive", jl.LeakyParams(tau_m=12.0, r_m=0.1, v_rest=-70.0), jl.LeakyIntegrator),
    ],
)
def test_the_cell_and_the_params_of_a_fit_run_as_its_prediction_does(model, params, kind):
    fit, current = fit_of(model, params), np.random.default_rng(0).normal(350.0, 200.0, (2, 400))
    assert isinstance(fit.cell, kind) and fit.cell.dt == DT
    predicted = fit.predict(jl.Recording(current, dt=DT, current_source="recorded"))
    driven = jl.recordings.notes.held_current(jl.Recording(current, dt=DT), True)
    _, output = jl.simulate(fit.cell, fit.params, driven.current.T)
    np.testing.assert_allclose(np.asarray(output.v).T, predicted.voltage, rtol=0, atol=1e-9)
    if model != "passive":
        steps, sweeps = np.nonzero(np.asarray(output.spikes))
        assert len(steps) > 10 and sorted(zip(sweeps, (steps + 1) * DT, strict=True)) == sorted(
            zip(predicted.spike_sweep, predicted.spike_time, strict=True)
        )


def test_the_cell_of_a_gif_fires_as_often_as_its_prediction():
    fit, current = fit_of("gif", replace(ADAPTIVE, delta_v=2.0)), np.full((8, 4000), 260.0)
    _, output = jl.simulate(fit.cell, fit.params, jl.escape_inputs(jax.random.key(0), current.T))
    count, predicted = float(np.sum(output.spikes)), len(fit.predict(jl.Recording(current, dt=DT)).spike_time)
    # Some 500 spikes, each count less variable than a Poisson number: four standard deviations of their difference.
    assert predicted > 300 and abs(count - predicted) < 4.0 * np.sqrt(count + predicted)


def test_the_old_name_of_a_model_is_the_new_one():
    recording = jl.Recording(np.arange(100.0), np.full(100, -70.0), dt=DT)
    for name in ("adaptive", "deterministic-gif"):
        with pytest.raises(ValueError, match='model = "deterministic-gif" finds its own start'):
            jl.fit_recording(recording, name, start=PLAIN)
