"""The report: one page that needs nothing else, and says all that the fit knows."""

import base64
import html
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.report import write_report
from jaxlif.tables import SCORE_LABELS, parameter_rows

NAME = "<b>&.npz"
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
def recording():
    noise = jl.stimulus.ornstein_uhlenbeck(jax.random.key(0), 180.0, 150.0, 5.0, 1500.0, 0.5)
    _, output = jl.simulate(jl.LIF(dt=0.5), jl.LIFParams(), noise)
    rows = [np.tile(np.asarray(x), (2, 1)) for x in (noise, output.v, output.spikes)]
    return jl.Recording(current=rows[0], voltage=rows[1], spikes=rows[2], dt=0.5, name=NAME, sha256="abc123")


@pytest.fixture(scope="module")
def fit(recording):
    return replace(jl.fit_recording(recording), warnings=WARNINGS)


@pytest.fixture(scope="module")
def written(fit, recording, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return folder, write_report(fit, folder, recording)


@pytest.fixture(scope="module")
def text(written):
    return (written[0] / "report.html").read_text(encoding="utf-8")


def test_the_files(written):
    folder, paths = written
    assert {path.name for path in paths} == {"voltage.png", "raster.png", "report.html"}
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
    assert embedded == [(written[0] / f"{name}.png").read_bytes() for name in ("voltage", "raster")]
    for png in embedded:
        pixels = plt.imread(io.BytesIO(png), format="png")
        assert min(pixels.shape[:2]) > 200
        assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 3, "more than an empty frame"


def test_every_parameter_with_its_unit(fit, text):
    for row in parameter_rows(fit.params):
        cells = [re.escape(html.escape(row[name])) for name in ("standard_name", "name", "value", "interval", "unit")]
        assert re.search(r"(?s){}</td>.*?{}</code>.*?>{}</td>.*?>{}</td><td>{}<".format(*cells), text), row


def test_scores_and_provenance(text):
    words = Page(text).text
    for name in ("rate_data", "coincidence_factor", "reliability", "md_star", "voltage_rmse"):
        assert SCORE_LABELS[name] in words
    for word in ("train", "test", "abc123", "seed 0", "dt = 0.5 ms", "2 sweeps", "0 to 1050 ms"):
        assert word in words


def test_names_and_warnings_are_escaped(text):
    page = Page(text)
    assert all(warning in page.text for warning in WARNINGS)
    assert f"LIF fitted to {NAME}" in page.text
    assert "<b>" not in text and "<script" not in text
    assert page.tags.count("li") == len(WARNINGS)


def test_no_warnings_no_list(fit, recording, tmp_path):
    write_report(replace(fit, warnings=()), tmp_path, recording)
    assert "<ul" not in (tmp_path / "report.html").read_text()


def test_rates_have_a_curve_and_no_voltage(tmp_path):
    currents = np.linspace(0.0, 500.0, 6)
    fit = jl.fit_rates(
        currents, np.asarray(jl.theory.firing_rate(jl.LIFParams(), currents)), jl.LIFParams(), name="r.csv"
    )
    assert {path.name for path in write_report(fit, tmp_path)} == {"f_i_curve.png", "report.html"}
    assert "f-I curve, RMSE (Hz)" in (tmp_path / "report.html").read_text()
