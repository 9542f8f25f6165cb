"""A fit.json is an input like any other: whatever was done to it, it is refused in one line or means what it says."""

import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest

import jaxlif as jl
from jaxlif.fitting.data import Drift, Stimulation, Uncertainty
from jaxlif.fitting.extrapolation import Regime
from jaxlif.neurons.a_current import ACurrent
from jaxlif.recordings import Electrode

SEED, DAMAGED = 10, 15  # more of them are drawn by hand
PLAIN = jl.LIFParams(tau_m=12.5, r_m=0.08, v_rest=-71.5, v_th=-52.25, v_reset=-61.0, t_ref=3.5)
MECHANISMS = (jl.MembraneCurrent(a=2.5, v_i=-41.0), ACurrent(g=3.0), jl.MembraneCurrent(a=-0.5, tau=150.0))


def fits():
    """Two fits that hold every kind of field, made without fitting."""
    data = {
        "name": "cell.npz",
        "sha256": "ab12",
        "corrections": {"voltage_gain": 0.1},
        "current_source": "recorded",
        "current_sampled": True,
    }
    data |= {"dt_ms": 0.1, "sweeps": 3, "samples": 5000, "sweep_crc32": [1, 2, 3]}
    shared = {"window": (0.0, 350.0), "spike_rule": jl.SpikeRule(), "spike_cut": (3.0, 2.5), "data": data, "seed": 3}
    lif = jl.RecordingFit(
        model="lif",
        params=PLAIN,
        scores={"train": {"rate_data": 8.5, "md_star": None}, "f_i": {"rmse": 2.0}},
        bounds={"tau_m": (0.5, 500.0), "t_ref": (0.0, 50.0)},
        protocol="steps",
        curve={"current_pA": [0.0, 100.0], "rate_Hz": [0.0, 9.0], "epoch_ms": [100.0, 300.0]},
        intervals={"tau_m": (12.0, 13.0)},
        **shared,
    )
    eta = {"eta": (40.0, 5.5), "tau_eta": (20.0, 150.0), "gamma": (3.0,), "tau_gamma": (30.0,)}
    gif = replace(
        lif,
        model="gif",
        protocol="fluctuating",
        params=jl.AdaptiveLIFParams(
            **vars(PLAIN), **eta, delta_v=1.75, coupling=jl.VoltageCoupling(b=0.4), mechanisms=MECHANISMS
        ),
        curve={},
        bounds={},
        warnings=("something to know",),
        electrodes=(((0, 2), Electrode(np.array([0.01, 0.002]), 0.1, "recording")),),
        held_out=(1,),
        rest="measured",
        drift=Drift(np.array([0.5, -0.25, 0.0]), np.array([1.0, 1.25, 0.75])),
        regimes=(Regime("stimulus a", 150.0, 80.0, 8.5),),
        bits_per_spike=1.5,
        uncertainty=Uncertainty(
            names=("tau_m", "eta.0"),
            intervals={"tau_m": (12.0, 13.0)},
            covariance=np.array([[0.04, 0.01], [0.01, 0.09]]),
            information=np.array([[[25.0, 1.0], [1.0, 11.0]], [[4.0, 0.5], [0.5, 3.0]]]),
            dispersion=(20.0, 1.25),
            voltage_error=1.5,
            notes=(),
            stimulus=Stimulation(150.0, 80.0, 3.0, 1500.0),
        ),
        scored=jl.AdaptiveLIFParams(**vars(PLAIN), mechanisms=MECHANISMS),
    )
    return {"lif": lif, "gif": gif}


@pytest.fixture(scope="module", params=["lif", "gif"])
def document(request, tmp_path_factory):
    path = fits()[request.param].save(tmp_path_factory.mktemp(request.param))
    return json.loads(path.read_text(encoding="utf-8"))


def ending(text, tmp_path):
    """Return the line of a refusal; or, where a file is read, what it writes again."""
    path = tmp_path / "fit.json"
    path.write_bytes(text)
    try:
        fit = jl.load_fit(path)
    except ValueError as error:
        assert "\n" not in str(error) and str(error).startswith(f"{path.name}: "), error
        return str(error)
    return json.loads(fit.save(tmp_path / "again").read_text(encoding="utf-8"))


def paths(node, path=()):
    """Return the path of every node of a document."""
    below = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(p for key, child in below for p in paths(child, (*path, key)))]


VALUES = [None, True, "x", "", -1, 0, 2.5, 10**400, math.inf, math.nan, [], {}, [[]], [None], {"x": 1}]


def damaged(document, rng):
    """Return a document with one fault, as text."""
    text = json.dumps(document).encode()
    kind = rng.integers(7)
    if kind == 0:
        return text[: rng.integers(len(text))]
    if kind == 1:
        place = rng.integers(len(text))
        return text[:place] + bytes([rng.integers(256)]) + text[place + 1 :]
    spoiled = copy.deepcopy(document)
    every = paths(spoiled)[1:]
    *above, key = every[rng.integers(len(every))]
    parent = spoiled
    for step in above:
        parent = parent[step]
    if kind == 2:
        del parent[key]
    elif kind == 3 and isinstance(parent, list):
        parent.append(parent[key])
    elif kind == 3:
        parent[f"{key}s"] = parent.pop(key)
    elif kind == 4:
        deep = parent[key]
        for _ in range(rng.choice([1, 300, 100_000])):
            deep = [deep]
        return _nested(document, spoiled, parent, key, deep)
    else:
        parent[key] = VALUES[rng.integers(len(VALUES))]
    return json.dumps(spoiled).encode()


def _nested(document, spoiled, parent, key, deep):
    """Write a value nested deeper than the writer of JSON itself can go."""
    levels = 0
    while isinstance(deep, list) and len(deep) == 1:
        deep, levels = deep[0], levels + 1
    parent[key] = "NESTED"
    inner = json.dumps(deep)
    return json.dumps(spoiled).replace('"NESTED"', "[" * levels + inner + "]" * levels).encode()


def test_a_fit_is_written_again_as_it_was(document, tmp_path):
    assert ending(json.dumps(document).encode(), tmp_path) == document


@pytest.mark.parametrize("name", ["lif", "gif"])
def test_every_field_of_a_fit_comes_back_as_it_was(name, tmp_path):
    fit = fits()[name]
    # Text holds a float exactly, and the kind of every container.
    assert repr(jl.load_fit(fit.save(tmp_path))) == repr(fit)


@pytest.mark.parametrize("number", range(DAMAGED))
def test_damage_is_refused_or_means_what_it_says(document, tmp_path, number):
    text = damaged(document, np.random.default_rng([SEED, number]))
    found = ending(text, tmp_path)
    if not isinstance(found, str):
        # The versions are those of who writes.
        assert found | {"versions": 0} == json.loads(text) | {"versions": 0}


CHANGES = {
    "no model": (("model",), None, "model = None"),
    "another model": (("model",), "lif", "parameters are those of another model"),
    "an unknown electrode": (("electrodes", 0, 1, "source"), "amplifier", "electrodes.source = 'amplifier'"),
    "an electrode of no sweep": (("electrodes", 0, 0), [7], "electrodes name the sweeps [7]: there are 3"),
    "a boolean": (("parameters", "tau_m", "value"), True, "parameters.tau_m.value = True"),
    "another unit": (("parameters", "tau_m", "unit"), "s", "parameters.tau_m = Row(value=12.5, unit='s'"),
    "a value that breaks its rule": (("parameters", "r_m", "value"), -0.1, "r_m = -0.1 GΩ: r_m must be greater"),
    "a value outside its bounds": (("parameters", "r_m", "bounds"), [0.1, 1.0], "r_m.value = 0.08: outside its bounds"),
    "a matrix of one": (("uncertainty", "covariance"), [[1.0]], "have the shapes ((1, 1), (2, 2, 2)), names are 2"),
    "a lopsided matrix": (("uncertainty", "covariance", 0, 1), 0.02, "uncertainty has a matrix that is not symmetric"),
    "a huge number": (("parameters", "eta.1", "value"), 10**400, "parameters.eta.1.value = 1000000"),
    "a number that is none": (("bits_per_spike",), math.nan, "bits_per_spike = nan"),
    "a window backwards": (("window",), [3.0, 1.0], "window = (3.0, 1.0): it ends before it starts"),
    "a term too few": (("drift", "gain"), [1.0], "drift has the shapes ((3,), (1,)): there are 3 sweeps"),
    "a later version": (("format",), "jaxlif fit 3", "format = 'jaxlif fit 3': this version of jaxlif reads"),
    "a word for a threshold": (("spike_rule", "threshold"), "high", "spike_rule.threshold = 'high'"),
    "an unknown mechanism": (("mechanisms", 1), "BCurrent", "'BCurrent': no mechanism of this name is known; import"),
    "another mechanism": (("mechanisms", 1), "MembraneCurrent", "parameters are those of another model"),
    "a score that is a word": (("scores", "train", "md_star"), "good", "scores.train.md_star = 'good'"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_wrong_is_named(tmp_path, change):
    path, value, words = CHANGES[change]
    document = json.loads(fits()["gif"].save(tmp_path).read_text(encoding="utf-8"))
    node = document
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    assert words in ending(json.dumps(document).encode(), tmp_path)


def test_keys_are_those_that_were_written(document, tmp_path):
    for key in document:
        if key != "versions":
            without = {name: value for name, value in document.items() if name != key}
            assert key in ending(json.dumps(without).encode(), tmp_path)
    assert "sed is no field of a fit" in ending(json.dumps(document | {"sed": 1}).encode(), tmp_path)
