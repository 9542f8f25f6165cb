"""Parameters and scores as text."""

import pytest

from jaxlif.neurons.lif import LIFParams
from jaxlif.tables import SCORE_LABELS, parameter_rows, score_rows, text_table


def test_parameter_rows_name_value_and_unit():
    rows = {row["name"]: row for row in parameter_rows(LIFParams(tau_m=12.34567, r_m=0.05))}
    assert list(rows) == ["tau_m", "r_m", "v_rest", "v_th", "v_reset", "t_ref"]
    assert rows["tau_m"] == {"standard_name": "membrane time constant", "name": "tau_m", "value": "12.35", "unit": "ms"}
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
