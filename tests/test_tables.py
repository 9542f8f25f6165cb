"""Parameters and scores as text."""

import numpy as np
import pytest

from jaxlif.fitting import RecordingFit
from jaxlif.fitting.drift import Drift
from jaxlif.neurons import AdaptiveLIFParams
from jaxlif.neurons.lif import LIFParams
from jaxlif.recordings import SpikeRule
from jaxlif.report import SCORE_LABELS, parameter_rows, score_rows, sweep_line, sweep_rows, text_table


def test_parameter_rows_name_value_and_unit():
    rows = {row["name"]: row for row in parameter_rows(LIFParams(tau_m=12.34567, r_m=0.05))}
    assert list(rows) == ["tau_m", "r_m", "v_rest", "v_th", "v_reset", "t_ref"]
    expected = {
        "standard_name": "membrane time constant",
        "name": "tau_m",
        "value": "12.35",
        "interval": "not estimated",
        "unit": "ms",
    }
    assert rows["tau_m"] == expected
    assert rows["r_m"]["value"] == "0.05" and rows["r_m"]["unit"] == "GΩ"


def test_score_rows_leave_gaps_and_drop_what_nobody_has():
    scores = {"train": {"rate_data": 0.0, "md_star": None, "delta": 4.0}, "test": {"rate_data": 12.345, "rmse": 1.0}}
    parts, rows = score_rows(scores)
    assert parts == ["train", "test"]
    assert rows == [("firing rate, cell (Hz)", ["0", "12.3"]), (SCORE_LABELS["rmse"], ["", "1"])]


def test_text_table_aligns():
    lines = text_table([("name", "x"), ("v", "12.5")]).splitlines()
    assert lines == ["name     x", "v     12.5"]
    assert text_table([("name", "x"), ("v", "12.5")], right=()).splitlines() == ["name  x", "v     12.5"]
    with pytest.raises(ValueError):
        text_table([("a", "b"), ("c",)])


def test_an_interval_stands_beside_its_parameter_and_terms_are_counted_from_one():
    params = AdaptiveLIFParams(eta=(60.0,), tau_eta=(80.0,))
    rows = {row["name"]: row for row in parameter_rows(params, {"eta.0": (50.0, 71.5)})}
    assert rows["eta.0"]["interval"] == "50 to 71.5" and rows["eta.0"]["unit"] == "pA"
    assert rows["eta.0"]["standard_name"] == "jump of spike-triggered current 1"
    assert rows["tau_eta.0"]["interval"] == "not estimated"
    # Four digits, or what tells the ends apart: an interval is never shown without a width.
    (row,) = (r for r in parameter_rows(LIFParams(), {"v_rest": (-70.0012, -69.9994)}) if r["name"] == "v_rest")
    assert row["interval"] == "-70.001 to -69.999"
    # What was looked for in vain is told from what was not looked for.
    rows = {row["name"]: row["interval"] for row in parameter_rows(LIFParams(), {}, ("v_th",))}
    assert rows.pop("v_th") == "not determined" and set(rows.values()) == {"not estimated"}


def fit_of(offset, gain, **settings):
    drift = None if offset is None else Drift(np.array(offset), np.array(gain))
    return RecordingFit(
        model="gif", params=LIFParams(), scores={}, bounds={}, train=(0.0, 1.0), protocol="fluctuating",
        spike_rule=SpikeRule(), spike_cut=(1.0, 1.0), data={}, seed=0, drift=drift, **settings,
    )  # fmt: skip


def test_sweeps_that_differ_have_a_row_each_and_a_line_together():
    fit = fit_of([-0.5, 0.254, 0.0], [0.98, 1.0204, 1.0], held_out=(2,))
    assert [tuple(row.values()) for row in sweep_rows(fit)] == [
        ("0", "-0.50", "0.980"),
        ("1", "+0.25", "1.020"),
        ("2 (held out)", "", ""),
    ]
    assert sweep_line(fit) == (
        "sweeps differ: v_rest fitted, -0.50 to +0.25 mV off its mean; gain of the current 0.980 to 1.020"
    )


def test_a_measured_rest_is_known_of_sweeps_held_out_too_and_no_gain_was_fitted():
    fit = fit_of([-1.0, 1.0, 3.0], [1.0, 1.0, 1.0], rest="measured", held_out=(2,))
    assert [(row["offset"], row["gain"]) for row in sweep_rows(fit)] == [("-1.00", ""), ("+1.00", ""), ("+3.00", "")]
    assert sweep_line(fit) == "sweeps differ: v_rest measured, -1.00 to +3.00 mV off its mean"


@pytest.mark.parametrize("offset", [None, [0.0, 0.0], [0.0]])
def test_sweeps_that_do_not_differ_are_not_listed(offset):
    fit = fit_of(offset, None if offset is None else [1.0] * len(offset))
    assert sweep_rows(fit) == [] and sweep_line(fit) == ""
