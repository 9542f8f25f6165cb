"""Parameters and scores as text."""

import pytest

from jaxlif.neurons import AdaptiveLIFParams
from jaxlif.neurons.lif import LIFParams
from jaxlif.tables import SCORE_LABELS, parameter_rows, score_rows, text_table


def test_parameter_rows_name_value_and_unit():
    rows = {row["name"]: row for row in parameter_rows(LIFParams(tau_m=12.34567, r_m=0.05))}
    assert list(rows) == ["tau_m", "r_m", "v_rest", "v_th", "v_reset", "t_ref"]
    expected = {
        "standard_name": "membrane time constant",
        "name": "tau_m",
        "value": "12.35",
        "interval": "",
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
    assert rows["tau_eta.0"]["interval"] == ""
