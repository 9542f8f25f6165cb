"""A mechanism that a user brings is fitted, judged and kept with the rest."""

from dataclasses import replace

import pytest

import jaxlif as jl
from tests.fitting.gif_cell import TRUTH, recorded

CELL = replace(TRUTH, coupling=None, mechanisms=(jl.ACurrent(g=6.0, v_m=-50.0, v_h=-58.0, tau_h=30.0),))


def test_a_given_mechanism_is_fitted_from_where_it_starts_and_survives_its_file(tmp_path):
    start = jl.ACurrent(g=2.0, v_m=-46.0, v_h=-62.0, tau_h=60.0)
    found = jl.fit_recording(recorded(CELL), "gif", electrode=None, coupling=False, mechanisms=(start,))
    (current,) = [m for m in found.params.mechanisms if isinstance(m, jl.ACurrent)]
    # Within twice the 95 % interval, some four standard errors, which is far from where it started.
    for name in ("g", "v_m", "v_h", "tau_h"):
        low, high = found.intervals[f"mechanisms.0.{name}"]
        assert abs(getattr(CELL.mechanisms[0], name) - 0.5 * (low + high)) < high - low, (name, low, high)
        assert high - low < 1.2 * abs(getattr(CELL.mechanisms[0], name)), name
    assert current.e_k == start.e_k
    # The noise is half a per cent of the variance, and what 14 s leave uncertain as much.
    assert found.scores["test"]["voltage_variance_explained"] > 0.98
    assert jl.load_fit(found.save(tmp_path)).params == found.params


def test_a_model_that_would_pass_over_a_mechanism_is_refused():
    with pytest.raises(ValueError, match='mechanisms.0 = ACurrent: model = "lif" has none'):
        jl.fit_recording(recorded(CELL, sweeps=1, duration=500.0), mechanisms=(jl.ACurrent(),))
    with pytest.raises(ValueError, match=r"mechanisms\.0 = 3: mechanisms must be Mechanisms"):
        jl.fit_recording(recorded(CELL, sweeps=1, duration=500.0), "gif", mechanisms=(3,))


def test_a_mechanism_with_which_the_voltage_runs_away_is_refused():
    made = recorded(CELL, sweeps=1, duration=3000.0)
    with pytest.raises(ValueError, match="the neuron runs away between the recorded spikes as it starts"):
        jl.fit_recording(made, "gif", electrode=None, mechanisms=(jl.ACurrent(g=1e30),))
