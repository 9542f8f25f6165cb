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
from jaxlif.fitting.data import Drift, Uncertainty
from jaxlif.neurons.adaptive import AdaptiveLIFParams
from jaxlif.neurons.lif import LIFParams
from jaxlif.recordings import Electrode
from jaxlif.report import (
    SCORE_LABELS,
    SHOWN,
    kernel_rows,
    parameter_rows,
    score_rows,
    sweep_line,
    text_table,
    write_report,
)
from jaxlif.traces import Answers, envelope, traces
from tests.command_line import TABLES

NAME = "<b>&.npz"
FIGURES = ("spikes", "voltage", "raster")
WARNINGS = (
    "r_m < 0.1 & <script>alert('x')</script>",
    "a second one",
    "the third",
    "4",
    "the membrane rectifies: bent",
    "6",
)
VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """Collect the tags, their links and the text; every tag must be closed, in the order in which they were opened."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.ids, self.text, self.open = [], [], [], "", []
        self.feed(text)
        self.close()
        assert self.open == [], "tags that are never closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "action", "data", "srcset", "poster")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["script"], ["style"]):
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


def test_the_files(written, stored):
    """The same fit draws the same bytes."""
    folder, paths = written
    figures = {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}
    assert {path.name for path in paths} == {*figures, *TABLES, "report.html"}
    assert {path.name for path in folder.iterdir()} == {path.name for path in paths}
    assert not plt.get_fignums(), "figures are closed"
    assert all((folder / name).read_bytes() == (stored[0] / name).read_bytes() for name in figures)


def test_the_page_needs_no_network_and_no_file(text):
    page = Page(text)
    assert "https:" not in text and "http:" not in text
    assert page.links and all(link.startswith("data:image/png;base64,") for link in page.links)
    assert not {"link", "iframe", "object"} & set(page.tags) and len(set(page.ids)) == len(page.ids)
    assert "@import" not in text and "url(" not in text
    assert "default-src 'none'" in text, "what a browser would fetch is forbidden"
    assert "MIT License" in text and "Copyright (c) 2022 Leon Sorokin" in text


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


def test_the_figures_show_the_numbers(fit, recording):
    """From the recording alone: spikes and their rates in 10 ms, intervals, and the voltage away from spikes."""
    shown = {picture.name: picture.figure for picture in pictures.pictures(fit, Answers(fit, recording))}
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
    plt.close("all")


def test_the_second_that_is_shown_is_one_in_which_the_cell_fires():
    """Silent for one second of four, and for the end, which is shorter than a second."""
    spikes = np.zeros((2, 8400), bool)
    spikes[:, 2000:8000:100] = True
    recording = jl.Recording(np.zeros(spikes.shape), dt=0.5, start=100.0)
    part = {"start_ms": 100.0, "stop_ms": 4300.0}
    assert pictures._second(recording, spikes, part) == ((1100.0, 2100.0), slice(2000, 4000))
    assert pictures._second(recording, spikes, {"start_ms": 3700.0, "stop_ms": 4300.0})[1] == slice(7200, 8400)


def test_every_parameter_with_its_unit(fit, text):
    for row in parameter_rows(fit)[1:]:
        assert re.search(
            r"<tr>{}</tr>".format("".join(f"<td.*?>{re.escape(html.escape(x))}</td>" for x in row)), text
        ), row


def test_scores_and_provenance(text):
    words = Page(text).text
    for name in ("rate_data", "coincidence_factor", "reliability", "md_star", "voltage_rmse"):
        assert SCORE_LABELS[name] in words
    for word in ("train", "test", "abc123", "seed 0", "dt = 0.5 ms", "2 sweeps", "0 to 1400 ms"):
        assert word in words


def test_names_and_warnings_are_escaped(text):
    page = Page(text)
    assert all(warning in page.text for warning in WARNINGS)
    assert f"LIF fitted to {NAME}" in page.text
    assert "<b>" not in text and "<script>alert" not in text
    assert page.tags.count("li") == len(WARNINGS)


def test_the_verdict_is_first_and_the_worst_notes_are_shown(fit, text):
    """Four of six notes are open, the grave one before all others; the rest are folded."""
    words = Page(text).text
    assert words.index(fit.verdict.sentence) < words.index(fit.notes[0]) and fit.notes[0] == WARNINGS[4]
    shown, folded = text.split("<details>")
    assert [html.escape(note, quote=True) in shown or html.escape(note) in shown for note in fit.notes[1:SHOWN]]
    assert "<summary>2 more notes</summary>" in folded and folded.index("<li>4</li>") < folded.index("<li>6</li>")


def test_traces_are_the_recording_and_the_forced_model_to_a_hundredth(fit, recording):
    """As a browser would decode them, against the arrays; a page's few values lose no peak."""
    answers = Answers(fit, recording)
    found = traces(answers)
    assert found["step"] == recording.dt and found["start"] == recording.times[0]
    for n, sweep in enumerate(found["sweeps"]):
        for kind, voltage in (("recorded", recording.voltage), ("model", answers.forced)):
            values = np.frombuffer(base64.b64decode(sweep[kind]), "<i2") / found["scale"]
            np.testing.assert_allclose(values, voltage[n], atol=0.5 / found["scale"] + 1e-9)
        np.testing.assert_allclose(sweep["spikes"][0], recording.times[answers.spikes[n]], atol=1e-3)
        assert sweep["label"] == f"sweep {n}, fitted from 0 to 1400 ms"


def test_an_envelope_loses_no_peak_and_keeps_its_place():
    x = np.random.default_rng(0).normal(size=(2, 1003))
    found, samples = envelope(x, 100)
    assert found.shape[-1] <= 200 and samples * found.shape[-1] >= 1003
    np.testing.assert_array_equal(found.max(axis=-1), x.max(axis=-1))
    np.testing.assert_array_equal(found.min(axis=-1), x.min(axis=-1))
    # A value lies within its bin of two values.
    assert (np.abs(samples * found.argmax(axis=-1) - x.argmax(axis=-1)) <= 2 * samples).all()
    assert envelope(x, 600)[1] == 1


def test_no_warnings_no_list(fit, recording, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "pictures", lambda *args: ())
    write_report(replace(fit, warnings=()), tmp_path, recording)
    assert "<ul" not in (tmp_path / "report.html").read_text()


def test_how_sweeps_differ_is_said(fit, recording, text, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "pictures", lambda *args: ())
    differing = replace(fit, drift=Drift(np.array([-0.5, 0.5]), np.array([0.98, 1.02])))
    write_report(differing, tmp_path, recording)
    assert f"<p>{sweep_line(differing)}</p>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "sweeps differ" not in text, "no sweeps differ in the other page"


def test_electrodes_are_one_number_or_a_range(fit, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "pictures", lambda *args: ())
    own = [(sweeps, Electrode(np.array([x]), 0.1, "given")) for sweeps, x in (((0,), 0.01), ((1,), 0.04))]
    for electrodes, words in (
        (own[:1], "an electrode of 10 MΩ (given);"),
        (own, "an electrode of 10 to 40 MΩ (given);"),
    ):
        write_report(replace(fit, electrodes=tuple(electrodes)), tmp_path)
        assert words in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_rates_have_a_curve_and_no_voltage(tmp_path):
    currents = np.linspace(0.0, 400.0, 9)
    fit = jl.fit_rates(currents, np.asarray(jl.theory.firing_rate(LIFParams(), currents)), LIFParams())
    names = {path.name for path in write_report(fit, tmp_path)}
    assert names == {"f_i_curve.png", "f_i_curve.svg", "report.html"}
    assert "f-I curve, RMSE (Hz)" in (tmp_path / "report.html").read_text()


def test_parameter_rows_name_value_and_unit(fit):
    heading, *rows = parameter_rows(replace(fit, params=LIFParams(tau_m=12.34567, r_m=0.05), intervals={}))
    assert heading == ("parameter", "value", "95 % interval", "unit", "")
    assert [row[0] for row in rows] == ["tau_m", "r_m", "v_rest", "v_th", "v_reset", "t_ref"]
    assert rows[0] == ("tau_m", "12.35", "not estimated", "ms", "membrane time constant")
    assert rows[1][1] == "0.05" and rows[1][3] == "GΩ"


def test_score_rows_leave_gaps_and_drop_what_nobody_has():
    scores = {"train": {"rate_data": 0.0, "md_star": None, "delta": 4.0}, "test": {"rate_data": 12.345, "rmse": 1.0}}
    assert score_rows(scores) == [
        ("score", "train", "test"),
        ("firing rate, cell (Hz)", "0", "12.3"),
        (SCORE_LABELS["rmse"], "", "1"),
    ]


def test_text_table_aligns():
    lines = text_table([("name", "x"), ("v", "12.5")]).splitlines()
    assert lines == ["name     x", "v     12.5"]
    assert text_table([("name", "x"), ("v", "12.5")], right=()).splitlines() == ["name  x", "v     12.5"]
    with pytest.raises(ValueError):
        text_table([("a", "b"), ("c",)])


def test_a_kernel_is_shown_as_a_whole_and_its_terms_are_not(fit):
    """Against the sum of its terms; of one term the band is its error, grown from mV at the end of t_ref."""
    eta, tau = np.array([60.0, -3.0]), np.array([5.0, 200.0])
    params = AdaptiveLIFParams(r_m=0.2, t_ref=4.0, eta=tuple(eta), tau_eta=tuple(tau), gamma=(2.0,), tau_gamma=(50.0,))
    covariance = np.diag([1e-9, 1e-9, 0.3**2, 1e-9])
    known = Uncertainty.unknown(("eta.0", "eta.1", "gamma.0", "r_m"))._replace(covariance=covariance)
    given = replace(fit, model="gif", params=params, uncertainty=known, intervals={})
    (heading, current, threshold) = kernel_rows(given)
    assert heading[1:5] == ("at 5 ms", "at 20 ms", "at 100 ms", "at 300 ms") and current[-1] == "pA"
    for text, t in zip(current[1:5], (5.0, 20.0, 100.0, 300.0), strict=True):
        assert float(text.split()[0]) == pytest.approx(eta @ np.exp(-t / tau), rel=5e-3)
    value, low, high = (float(x) for x in re.findall(r"[-\d.]+", threshold[2]))
    assert value == pytest.approx(2.0 * np.exp(-20.0 / 50.0), rel=5e-3)
    assert high - value == pytest.approx(value - low, abs=0.02) == pytest.approx(1.96 * 0.3 * np.exp(-0.32), abs=0.02)
    names = [row[0] for row in parameter_rows(given)]
    assert "delta_v" in names and not [name for name in names if "eta" in name or "gamma" in name]
    # Without errors there is a kernel and no band; and a neuron without kernels has none.
    assert re.fullmatch(r"[-\d.]+", kernel_rows(replace(given, uncertainty=None))[1][1])
    assert kernel_rows(fit) == [] and kernel_rows(replace(given, params=AdaptiveLIFParams())) == []
    with pytest.raises(ValueError, match='model = "lif": it has no kernels'):
        fit.kernel("eta", [5.0])
    with pytest.raises(ValueError, match="kind = 'zeta'"):
        given.kernel("zeta", [5.0])


def test_an_interval_stands_beside_its_parameter(fit):
    def shown(params, intervals, undetermined=()):
        given = replace(fit, params=params, intervals=intervals, undetermined=undetermined)
        return {row[0]: row[1:] for row in parameter_rows(given)}

    # Four digits, or what tells the ends apart: an interval is never shown without a width.
    assert shown(LIFParams(), {"v_rest": (-70.0012, -69.9994)})["v_rest"][1] == "-70.001 to -69.999"
    # What was looked for in vain is told from what was not looked for.
    found = {name: row[1] for name, row in shown(LIFParams(), {}, ("v_th",)).items()}
    assert found.pop("parameter") and found.pop("v_th") == "not determined" and set(found.values()) == {"not estimated"}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        # What a fit cannot know of a sweep that was held out is not counted; a measured rest is known of it too.
        ({}, "v_rest fitted, -0.50 to +0.25 mV off its mean; gain of the current 0.980 to 1.020"),
        ({"rest": "measured"}, "v_rest measured, -0.50 to +3.00 mV off its mean; gain of the current 0.980 to 1.020"),
        ({"drift": Drift(np.array([-1.0, 1.0, 3.0]), np.ones(3))}, "v_rest fitted, -1.00 to +1.00 mV off its mean"),
        ({"drift": Drift(np.zeros(3), np.array([0.98, 1.02, 1.0]))}, "gain of the current 0.980 to 1.020"),
    ],
)
def test_sweeps_that_differ_have_a_line(fit, changes, line):
    drift = Drift(np.array([-0.5, 0.254, 3.0]), np.array([0.98, 1.0204, 1.0]))
    assert sweep_line(replace(fit, **({"drift": drift, "held_out": (2,)} | changes))) == f"sweeps differ: {line}"


@pytest.mark.parametrize("offset", [None, [0.0, 0.0], [0.0]])
def test_sweeps_that_do_not_differ_have_none(fit, offset):
    assert (
        sweep_line(replace(fit, drift=None if offset is None else Drift(np.array(offset), np.ones(len(offset))))) == ""
    )


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
    tables: [...document.querySelectorAll("body > table")].map(
      t => [...t.rows].map(r => [...r.cells].map(c => c.innerText))),
    warnings: [...document.querySelectorAll("ul.warnings li")].map(l => l.textContent),
    sweeps: [...document.querySelectorAll("#sweep option")].map(o => o.innerText),
    plots: [...document.querySelectorAll("#plot canvas")].map(c => [c.width, c.height]),
    visible: [...document.querySelectorAll("h1, body > table, figure, body > ul > li")].every(
      e => box(e).width > 0 && box(e).height > 0),
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
    assert len(page["plots"]) == 1 and min(page["plots"][0]) > 300 and len(page["sweeps"]) == 2
    assert page["visible"] and page["scroll"] <= page["width"], "nothing to be scrolled sideways"


def test_a_browser_shows_the_tables_and_the_warnings(seen, fit):
    assert seen[0]["tables"] == [[list(row) for row in rows] for rows in (parameter_rows(fit), score_rows(fit.scores))]
    assert seen[0]["warnings"] == list(fit.notes)


def test_the_browser_would_notice(browse):
    """The witness itself: an image that is not there, a fetch and a script that fails are seen."""
    page, log = browse('<html><head></head><body><img src="http://a.invalid/b.png"><script>no()</script></body></html>')
    assert len(page["failed"]) == 2 and page["requests"] == ["http://a.invalid/b.png"] and "CONSOLE" in log
    assert page["images"][0][1] == 0
