"""The report: one page that needs nothing else, and says all that the fit knows."""

import base64
import html
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pytest

import jaxlif as jl
from jaxlif import pictures
from jaxlif.fitting.data import Drift
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.neurons.lif import LIFParams
from jaxlif.report import (
    SCORE_LABELS,
    parameter_rows,
    score_rows,
    sweep_line,
    sweep_rows,
    text_table,
    write_report,
)
from tests.command_line import DT

NAME = "<b>&.npz"
FIGURES = ("voltage", "raster", "intervals", "worst")
WARNINGS = ("r_m < 0.1 & <script>alert('x')</script>", "a second one")


class Page(HTMLParser):
    """Collect the tags, their links and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "action", "data", "srcset", "poster")]

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def recording(cell_file):
    return jl.read_recording(cell_file)


@pytest.fixture(scope="module")
def fit(stored):
    """The stored fit, under a name and with warnings that a page must escape."""
    read = jl.load_fit(stored[0] / "fit.json")
    return replace(read, warnings=WARNINGS, data=dict(read.data) | {"name": NAME, "sha256": "abc123"})


@pytest.fixture(scope="module")
def written(fit, recording, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    plt.close("all")  # what the tests of figures left open is not this report's
    return folder, write_report(fit, folder, recording)


@pytest.fixture(scope="module")
def text(written):
    return (written[0] / "report.html").read_text(encoding="utf-8")


def test_the_files(written):
    folder, paths = written
    figures = {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}
    assert {path.name for path in paths} == figures | {"report.html"}
    assert {path.name for path in folder.iterdir()} == {path.name for path in paths}
    assert not plt.get_fignums(), "figures are closed"


def test_the_page_needs_no_network_and_no_file(text):
    page = Page(text)
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"base64,[^\"]*", "", text))
    assert page.links and all(link.startswith("data:image/png;base64,") for link in page.links)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "@import" not in text and "url(" not in text


def test_the_figures_are_the_files(written, text):
    embedded = [base64.b64decode(link.partition(",")[2], validate=True) for link in Page(text).links]
    assert embedded == [(written[0] / f"{name}.png").read_bytes() for name in FIGURES]
    for png in embedded:
        pixels = plt.imread(io.BytesIO(png), format="png")
        assert min(pixels.shape[:2]) > 200
        colours = np.rint(255 * pixels).astype(np.int64) @ 256 ** np.arange(pixels.shape[2])
        assert len(np.unique(colours)) > 3, "more than an empty frame"


def test_vector_figures_are_whole_and_need_nothing(written):
    for name in FIGURES:
        text = (written[0] / f"{name}.svg").read_text(encoding="utf-8")
        root = ElementTree.fromstring(text)
        assert root.tag.endswith("svg") and len(list(root.iter())) > 50
        references = re.findall(r'(?:href|src)="([^"]*)"', text)
        assert all(reference.startswith("#") for reference in references)


def test_the_worst_segment_is_where_the_voltage_was_spoiled(fit, recording):
    """10 mV added to 60 ms of the second sweep, far from a spike, come first, with the RMSE of the residual there."""
    voltage = recording.voltage.copy()
    voltage[1, 1100:1220] += 10.0
    shown = pictures._shown(fit, replace(recording, voltage=voltage))
    spikes, forced = fit.spike_rule.find(shown.recording), fit.predict(shown.recording, force_spikes=True)
    sweep, part, error = pictures._worst_segments(shown)[0]
    assert sweep == 1 and part.start <= 1100 < 1220 <= part.stop
    before, after = (round(t / DT) for t in fit.spike_cut)
    rows = [n for n in range(part.start, part.stop) if not spikes[1, max(0, n - after + 1) : n + before + 1].any()]
    residual = voltage[1, rows] - forced.voltage[1, rows]
    assert error == pytest.approx(np.sqrt(np.mean(residual**2)))


def test_the_figures_show_the_numbers(fit, recording):
    """From the recording alone: spikes and their rates in 10 ms, intervals, and the voltage away from spikes."""
    shown = {picture.name: picture.figure for picture in pictures.pictures(fit, recording)}
    spikes, times = fit.spike_rule.find(recording), recording.times
    window = (times > 1400.0) & (times <= 2400.0)  # a second of what was held out, as far as it goes
    trace, residual = shown["voltage"].axes
    recorded, model = trace.lines[:2]
    np.testing.assert_allclose(recorded.get_ydata(), recording.voltage[1, window], atol=2e-6)
    assert np.nanmax(np.abs(residual.lines[0].get_ydata())) < 0.1  # mV; parameters are known to 1e-3
    assert np.isnan(model.get_ydata()[spikes[1, window]]).all()
    ticks, rates = shown["raster"].axes
    cell = np.sort(ticks.lines[0].get_xdata()[ticks.lines[0].get_ydata() < 2])
    np.testing.assert_allclose(cell, np.sort(np.repeat(times[spikes[0]], 2)))
    steps = rates.patches[0].get_data()
    counts = np.histogram(times[spikes[0]], steps.edges)[0]
    np.testing.assert_allclose(steps.values, counts / 0.010)  # Hz; both trials are alike
    intervals = np.concatenate([np.diff(times[train]) for train in spikes])
    labels = [text.get_text() for text in shown["intervals"].axes[0].get_legend().get_texts()]
    assert labels[0] == f"cell, {len(intervals)} intervals" and len(shown["worst"].axes) == 2
    plt.close("all")


def test_every_parameter_with_its_unit(fit, text):
    for row in parameter_rows(fit.params, fit.intervals):
        cells = [re.escape(html.escape(row[name])) for name in ("standard_name", "name", "value", "interval", "unit")]
        assert re.search(r"(?s){}</td>.*?{}</code>.*?>{}</td>.*?>{}</td><td>{}<".format(*cells), text), row


def test_scores_and_provenance(text):
    words = Page(text).text
    for name in ("rate_data", "coincidence_factor", "reliability", "md_star", "voltage_rmse"):
        assert SCORE_LABELS[name] in words
    for word in ("train", "test", "abc123", "seed 0", "dt = 0.5 ms", "2 sweeps", "0 to 1400 ms"):
        assert word in words


def test_scores_stand_beside_what_the_cell_reaches(fit, text):
    own = f"{fit.scores['test']['reliability']:.3g}"
    row = re.search(r"(?s)<tr><td>coincidence factor Γ</td>(.*?)</tr>", text)
    assert "the cell itself" in text and row[1].count("<td") == 3
    assert re.findall(r">([^<]*)</td>", row[1])[-1] == own


def test_names_and_warnings_are_escaped(text):
    page = Page(text)
    assert all(warning in page.text for warning in WARNINGS)
    assert f"LIF fitted to {NAME}" in page.text
    assert "<b>" not in text and "<script" not in text
    assert page.tags.count("li") == len(WARNINGS)


def test_no_warnings_no_list(fit, recording, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "pictures", lambda *args: ())
    write_report(replace(fit, warnings=()), tmp_path, recording)
    assert "<ul" not in (tmp_path / "report.html").read_text()


def test_sweeps_that_differ_are_a_table(fit, recording, text, tmp_path, monkeypatch, browse):
    monkeypatch.setattr(pictures, "pictures", lambda *args: ())
    differing = replace(fit, drift=Drift(np.array([-0.5, 0.5]), np.array([0.98, 1.02])))
    write_report(differing, tmp_path, recording)
    page, _ = browse((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page["tables"][2] == [["sweep", "offset (mV)", "gain"], ["0", "-0.50", "0.980"], ["1", "+0.50", "1.020"]]
    assert page["visible"] and page["scroll"] <= page["width"]
    assert "Sweeps" not in text, "no sweeps differ in the other page"


def test_rates_have_a_curve_and_no_voltage(tmp_path):
    currents = np.linspace(0.0, 400.0, 9)
    fit = jl.fit_rates(currents, np.asarray(jl.theory.firing_rate(LIFParams(), currents)), LIFParams())
    names = {path.name for path in write_report(fit, tmp_path)}
    assert names == {"f_i_curve.png", "f_i_curve.svg", "report.html"}
    assert "f-I curve, RMSE (Hz)" in (tmp_path / "report.html").read_text()


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
    rows = {row["name"]: row for row in parameter_rows(params, {"eta.0": (50.0, 71.54)})}
    assert rows["eta.0"]["interval"] == "50 to 71.54" and rows["eta.0"]["unit"] == "pA"
    assert rows["eta.0"]["standard_name"] == "jump of spike-triggered current 1"
    assert rows["tau_eta.0"]["interval"] == "not estimated"
    # Four digits, or what tells the ends apart: an interval is never shown without a width.
    (row,) = (r for r in parameter_rows(LIFParams(), {"v_rest": (-70.0012, -69.9994)}) if r["name"] == "v_rest")
    assert row["interval"] == "-70.001 to -69.999"
    # What was looked for in vain is told from what was not looked for.
    rows = {row["name"]: row["interval"] for row in parameter_rows(LIFParams(), {}, ("v_th",))}
    assert rows.pop("v_th") == "not determined" and set(rows.values()) == {"not estimated"}


def test_sweeps_that_differ_have_a_row_each_and_a_line_together(fit):
    differing = replace(fit, drift=Drift(np.array([-0.5, 0.254, 0.0]), np.array([0.98, 1.0204, 1.0])), held_out=(2,))
    assert [tuple(row.values()) for row in sweep_rows(differing)] == [
        ("0", "-0.50", "0.980"),
        ("1", "+0.25", "1.020"),
        ("2 (held out)", "", ""),
    ]
    assert sweep_line(differing) == (
        "sweeps differ: v_rest fitted, -0.50 to +0.25 mV off its mean; gain of the current 0.980 to 1.020"
    )


def test_a_measured_rest_is_known_of_sweeps_held_out_too_and_no_gain_was_fitted(fit):
    drift = Drift(np.array([-1.0, 1.0, 3.0]), np.ones(3))
    differing = replace(fit, drift=drift, rest="measured", held_out=(2,))
    assert [tuple(row.values())[1:] for row in sweep_rows(differing)] == [("-1.00", ""), ("+1.00", ""), ("+3.00", "")]
    assert sweep_line(differing) == "sweeps differ: v_rest measured, -1.00 to +3.00 mV off its mean"


@pytest.mark.parametrize("offset", [None, [0.0, 0.0], [0.0]])
def test_sweeps_that_do_not_differ_are_not_listed(fit, offset):
    same = replace(fit, drift=None if offset is None else Drift(np.array(offset), np.ones(len(offset))))
    assert sweep_rows(same) == [] and sweep_line(same) == ""


# Runs in the browser, before anything of the page is parsed, and writes what a reader would see into the page.
WITNESS = """<script>
const failed = [];
addEventListener("error", e => failed.push(e.message || e.target.src || e.target.href || "?"), true);
addEventListener("load", () => {
  const box = e => e.getBoundingClientRect();
  const seen = {
    failed,
    requests: performance.getEntriesByType("resource").map(r => r.name).filter(n => !n.startsWith("data:")),
    images: [...document.images].map(i => [i.complete, i.naturalWidth, i.naturalHeight, box(i).width, box(i).right]),
    captions: [...document.querySelectorAll("figcaption")].map(c => c.innerText),
    tables: [...document.querySelectorAll("table")].map(t => [...t.rows].map(r => [...r.cells].map(c => c.innerText))),
    warnings: [...document.querySelectorAll("ul.warnings li")].map(l => l.innerText),
    visible: [...document.querySelectorAll("h1, table, figure, li")].every(e => box(e).width > 0 && box(e).height > 0),
    width: document.documentElement.clientWidth, scroll: document.documentElement.scrollWidth,
  };
  const out = document.createElement("pre");
  out.id = "seen";
  out.textContent = btoa(unescape(encodeURIComponent(JSON.stringify(seen))));
  document.body.append(out);
});
</script>"""


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """Return a function of a page's text: what a headless Chromium without a network shows of it, and its log."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip(f"no browser to look at the page with: none of {', '.join(names)} is installed")

    def look(text):
        folder = tmp_path_factory.mktemp("browser")
        (folder / "page.html").write_text(text.replace("<head>", f"<head>{WITNESS}", 1), encoding="utf-8")
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1100,900",
            f"--user-data-dir={folder}/user", "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND",  # every host is unknown: what the page would fetch fails
            "--enable-logging=stderr", "--dump-dom", f"file://{folder}/page.html",
        ]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        found = re.search(r'<pre id="seen">([^<]*)</pre>', result.stdout)
        return json.loads(base64.b64decode(found[1])), result.stderr

    return look


@pytest.fixture(scope="module")
def seen(browse, text):
    return browse(text)


def test_a_browser_without_a_network_shows_every_figure(seen):
    page, log = seen
    assert page["failed"] == [] and page["requests"] == [] and "CONSOLE" not in log
    assert len(page["images"]) == len(page["captions"]) == len(FIGURES)
    for complete, natural_width, natural_height, width, right in page["images"]:
        assert complete and natural_width > 500 and natural_height > 200
        assert width > 400 and right <= page["width"], "inside the page"
    assert page["visible"] and page["scroll"] <= page["width"], "nothing to be scrolled sideways"


def test_a_browser_shows_the_tables_and_the_warnings(seen, fit):
    parameters, scores = seen[0]["tables"]
    assert parameters[0] == ["parameter", "", "value", "95 % interval", "unit"]
    columns = ("standard_name", "name", "value", "interval", "unit")
    expected = [[row[name] for name in columns] for row in parameter_rows(fit.params, fit.intervals)]
    assert parameters[1:] == expected
    assert scores[0] == ["score", "train", "test", "the cell itself"]
    assert [row[0] for row in scores[1:]] == [label for label, _ in score_rows(fit.scores)[1]]
    assert seen[0]["warnings"] == list(WARNINGS)


def test_the_browser_would_notice(browse):
    """The witness itself: an image that is not there, a fetch and a script that fails are seen."""
    page, log = browse('<html><head></head><body><img src="http://a.invalid/b.png"><script>no()</script></body></html>')
    assert len(page["failed"]) == 2 and page["requests"] == ["http://a.invalid/b.png"] and "CONSOLE" in log
    assert page["images"][0][1] == 0
