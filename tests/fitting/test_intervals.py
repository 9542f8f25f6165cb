"""Intervals, information and advice against closed forms, brute force and recordings made by a known neuron."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from click.testing import CliRunner
from scipy.special import stdtrit

import jaxlif as jl
from jaxlif.cli import main
from jaxlif.fitting import gif_recipe
from jaxlif.fitting.advisor import Advice
from jaxlif.fitting.data import Data, Options
from jaxlif.fitting.intervals import UNKNOWN, determined, kernel_band, narrowed, sandwich, uncertainty
from jaxlif.fitting.joint_likelihood import JointLoss
from jaxlif.fitting.lanes import cut_lanes, single_precision
from jaxlif.fitting.optimise import Minimum, minimise

DT, SPIKES_ALONE = 0.5, ("v_th", "delta_v", "gamma.*")
TRUTH = jl.AdaptiveLIFParams(
    tau_m=20.0, r_m=0.1, v_rest=-65.0, v_th=-50.0, v_reset=-60.0, t_ref=4.0, delta_v=1.0,
    eta=(40.0,), tau_eta=(30.0,), gamma=(4.0,), tau_gamma=(50.0,),
)  # fmt: skip


def recorded(current, seed):
    """Return a recording of the true neuron under a current [S, T], with 0.5 mV of white noise on its voltage."""
    inputs = jl.escape_inputs(jax.random.key(seed), current.T)
    _, output = jl.simulate(jl.EscapeNoise(jl.AdaptiveLIF(dt=DT)), TRUTH, inputs)
    spikes = np.asarray(output.spikes).T > 0
    noise = 0.5 * np.random.default_rng(seed).standard_normal(spikes.shape)
    return Data(np.asarray(current), np.asarray(output.v).T + noise, spikes=spikes, dt=DT)


def noise(seed, sd=120.0, sweeps=3, duration=6000.0):
    keys = jax.random.split(jax.random.key(seed), sweeps)
    return np.asarray(jax.vmap(lambda k: jl.stimulus.ornstein_uhlenbeck(k, 170.0, sd, 4.0, duration, DT))(keys))


def loss_of(traces, params=TRUTH, **more):
    with single_precision():
        return JointLoss(params, cut_lanes(traces, params), DT, **more)


@pytest.fixture(scope="module")
def traces():
    return recorded(noise(0), 1)


def test_at_the_truth_the_score_vanishes_and_scatters_as_the_information_says():
    # The test of a consistent likelihood: simulator and likelihood agree on reset, refractoriness and the spike's step.
    loss = loss_of(recorded(noise(3, sweeps=16, duration=3000.0), 4), free=SPIKES_ALONE)
    scores, told = loss.pieces(loss.start, loss(loss.start)[1])
    lanes = scores.shape[1]  # a second each, of which the scores do not correlate: they are a martingale's steps
    assert lanes == 48
    whitened = np.linalg.solve(np.linalg.cholesky(told[1] / lanes), scores[1].T)
    # 48 lanes in 3 directions, each standard normal: 4 standard errors of the means, and of the mean square.
    assert np.all(np.abs(whitened.mean(axis=1)) < 4.0 / np.sqrt(lanes))
    assert abs(np.mean(whitened**2) - 1.0) < 4.0 * np.sqrt(2.0 / whitened.size)
    np.testing.assert_array_equal(scores[0], 0.0)  # the forced voltage knows nothing of the threshold


def test_the_intervals_are_those_of_the_curvature_in_the_parameters_own_units(traces):
    """Spikes alone, against second differences of the loss in mV and ms, in which no jump is carried anywhere."""
    loss = loss_of(traces, free=SPIKES_ALONE)
    found = minimise(loss, loss.start, np.arange(3))
    known = uncertainty(loss, found, traces.current)
    params = loss.params(found.vector)

    def at(x):
        v_th, delta_v, gamma = map(float, x)
        return loss(loss.coordinate.vector(replace(params, v_th=v_th, delta_v=delta_v, gamma=(gamma,))))[0]

    best = np.array([params.v_th, params.delta_v, params.gamma[0]])
    step = np.diag([0.1, 0.05, 0.3])  # about a standard error: differences of a nat, of a loss good to a thousandth
    curvature = [
        [
            (at(best + d + e) - at(best + d - e) - at(best - d + e) + at(best - d - e)) / (4 * d.max() * e.max())
            for d in step
        ]
        for e in step
    ]
    sd = np.sqrt(known.dispersion[1] * np.diag(np.linalg.inv(curvature)))
    own = dict(zip(("v_th", "delta_v", "gamma.0"), best, strict=True))
    assert set(known.intervals) == {"v_th", "delta_v"}  # a kernel has a band, not intervals term by term
    quantile = stdtrit(found.pieces.scores.shape[1] - 1, 0.975)
    for reach, (name, (low, high)) in zip(quantile * sd, known.intervals.items(), strict=False):
        # The information is the expected curvature; of some 200 spikes it is within a quarter of the one found.
        half = 0.5 * own[name] * np.log(high / low) if name == "delta_v" else 0.5 * (high - low)
        assert half == pytest.approx(reach, rel=0.25) and low < own[name] < high, name


def test_a_sandwich_is_that_of_a_regression_whatever_its_units():
    """Against the sum over samples written out, with a column that is twice another and one of zeros."""
    random = np.random.default_rng(0)
    x, errors = random.normal(size=(200, 2)) * [1.0, 1e-4], random.normal(size=200)
    expected = np.linalg.inv(x.T @ x) @ (x.T * errors**2) @ x @ np.linalg.inv(x.T @ x)
    found = sandwich(x.T @ x, (x.T * errors**2) @ x)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    wide = np.column_stack([x, 2.0 * x[:, 0], np.zeros(200)])
    found = sandwich(wide.T @ wide, (wide.T * errors**2) @ wide)
    assert found[[0, 2, 3], [0, 2, 3]].tolist() == [UNKNOWN] * 3
    # With the others held the second is known as alone.
    assert found[1, 1] == pytest.approx(np.sum((x[:, 1] * errors) ** 2) / np.sum(x[:, 1] ** 2) ** 2)
    wide[0] = np.nan
    assert np.diag(sandwich(wide.T @ wide, np.eye(4))).tolist() == [UNKNOWN] * 4


def test_what_the_data_say_nothing_about_has_no_interval(traces):
    """A current that does not flow has a time constant and a place by the prior alone, which is no finding."""
    silent = replace(TRUTH, mechanisms=(jl.MembraneCurrent(a=0.0),))
    loss = loss_of(traces, silent, free=("v_th", "mechanisms.*"))
    score = loss(loss.start)[1]
    there = Minimum(loss.start, 0.0, score, loss.pieces(loss.start, score))
    known = uncertainty(loss, there, traces.current)
    kept, lost = determined(silent, known.intervals)
    assert set(lost) == {"mechanisms.0.tau", "mechanisms.0.v_i"} and set(kept) == {"v_th", "mechanisms.0.a"}
    assert np.isfinite(known.correlations).all()
    assert not any("tau" in note or "v_i" in note for note in known.notes)


def test_what_a_search_has_left_is_an_error_too(traces):
    """Stopped three standard errors off, the interval still holds the minimum, and is wider by what is left alone."""
    loss = loss_of(traces, free=SPIKES_ALONE)
    best = minimise(loss, loss.start, np.arange(3), enough=1e-3)
    exact = uncertainty(loss, best, traces.current).covariance
    away = 3.0 * np.sqrt(exact[0, 0]) * np.eye(3)[0]
    score = loss(best.vector + away)[1]
    there = best._replace(vector=best.vector + away, score=score, pieces=loss.pieces(best.vector + away, score))
    # The information is not the same three standard errors off: within a fifth, and a variance within two.
    more = np.sqrt(uncertainty(loss, there, traces.current).covariance[0, 0])
    assert more == pytest.approx(np.sqrt(10.0 * exact[0, 0]), rel=0.2)


def test_the_band_of_a_kernel_is_that_of_draws_from_the_covariance(fit):
    """Against 4000 draws of all coordinates, membrane resistance and all, turned into parameters one by one."""
    known, params, times = fit.uncertainty, fit.params, np.array([4.0, 10.0, 40.0, 150.0])
    coordinate = loss_of(recorded(noise(0, duration=1000.0), 1), params).coordinate
    draws = np.random.default_rng(0).multivariate_normal(coordinate.vector(params), known.covariance, 4000)
    with jax.enable_x64(True):
        drawn = jax.vmap(lambda z: coordinate.params(z, params))(draws)
    for kind in ("eta", "gamma"):
        taus = np.array(getattr(params, f"tau_{kind}"))
        kernels = np.exp(-times[:, None] / taus) @ np.array(getattr(drawn, kind))
        value, low, high = kernel_band(params, known, kind, times)
        np.testing.assert_allclose(value, np.exp(-times[:, None] / taus) @ np.array(getattr(params, kind)), rtol=1e-6)
        # The ends of 95 % of 4000 draws are good to 5 % of the half width.
        ends = np.quantile(kernels, [0.025, 0.975], axis=1)
        np.testing.assert_allclose([low, high], ends, atol=0.07 * (high - low).max() / 2.0)


@pytest.fixture(scope="module")
def fit():
    """A fit of 18 s, as a recipe leaves it, started at the truth to save time."""
    return fitted(recorded(noise(0), 1))


def fitted(traces):
    with single_precision():
        params, known = gif_recipe._polish(traces, TRUTH, TRUTH, Options(window=(0.0, 6000.0)))[:2]
    data = {"name": "", "sha256": "", "dt_ms": DT, "sweeps": 3, "samples": 12_000, "current_source": "commanded"}
    data |= {"current_sampled": False, "corrections": {}, "sweep_crc32": [1, 2, 3]}
    return jl.RecordingFit(
        model="gif", params=params, scores={}, bounds={}, window=(0.0, 6000.0), protocol="fluctuating",
        spike_rule=jl.SpikeRule(), spike_cut=(5.0, 4.5), data=data, seed=0,
        intervals=known.intervals, uncertainty=known,
    )  # fmt: skip


def test_the_dispersion_is_that_of_the_errors(fit):
    # White errors of the voltage, each counted as dt / 50 ms of one: the score scatters by that share of what is told.
    # 50 blocks in some six directions know a variance to 8 %, five of which are allowed; spikes as they should.
    voltage, spikes = fit.uncertainty.dispersion
    assert voltage == pytest.approx(DT / 50.0, rel=0.4) and 1.0 <= spikes < 1.4
    assert fit.uncertainty.voltage_error == pytest.approx(0.5, rel=0.05)


def test_twice_as_long_is_narrower_by_the_square_root(fit):
    advice = jl.advise_protocol(fit, {"again": noise(7)})
    # Some 200 spikes in each: their number alone makes an interval uncertain by 4 %, a single direction by more.
    assert np.exp(np.log(advice.ratios).mean()) == pytest.approx(np.sqrt(0.5), rel=0.05)
    np.testing.assert_allclose(advice.ratios[0], np.sqrt(0.5), rtol=0.2)
    # Information adds up: what shrinks to 1/√(1+x) with x = 1 shrinks to 1/√(1+3x) with three times as much.
    longer = jl.advise_protocol(fit, {"again": noise(7)}, duration=54_000.0)
    assert np.exp(np.log(longer.ratios).mean()) == pytest.approx(0.5, rel=0.08)


def test_what_is_advised_helps(fit):
    candidates = {"large": noise(7, sd=240.0), "small": noise(7, sd=30.0)}
    advice = jl.advise_protocol(fit, candidates)
    assert advice.candidates == ("large", "small")
    widths = {}
    for name, current in candidates.items():
        pair = recorded(noise(0), 1), recorded(current, 5)
        rows = {n: np.concatenate([getattr(x, n) for x in pair]) for n in ("current", "voltage", "spikes")}
        known = fitted(Data(**rows, dt=DT)).uncertainty
        widths[name] = np.sqrt(np.diag(known.covariance))
    before = np.sqrt(np.diag(fit.uncertainty.covariance))
    for name, ratios in zip(advice.candidates, advice.ratios, strict=True):
        # The recording was made by the truth, the prediction by the fit, from other noise: within 25 % of each other.
        np.testing.assert_allclose(widths[name] / before, ratios, rtol=0.25, err_msg=name)


def test_the_command_prints_the_table_from_the_file_alone(fit, tmp_path):
    path = fit.save(tmp_path)
    again = jl.load_fit(path)
    np.testing.assert_array_equal(again.uncertainty.covariance, fit.uncertainty.covariance)
    np.testing.assert_array_equal(again.uncertainty.correlations, fit.uncertainty.correlations)
    assert again.uncertainty.stimulus == fit.uncertainty.stimulus
    with jax.enable_x64(False):
        output = CliRunner().invoke(main, ["advise", str(path)]).output
    told = set(fit.uncertainty.names) - set(fit.undetermined)
    assert output.splitlines()[1].startswith("tau_m") and output.count("*") == len(told)
    assert "noise below threshold, around 0 pA" in output and "steps of 500 ms" in output


def test_advice_that_cannot_be_given_says_why(fit):
    with pytest.raises(ValueError, match='model = "lif": advice needs the Fisher information'):
        jl.advise_protocol(replace(fit, model="lif"))
    with pytest.raises(ValueError, match=r"parameters = \['tau'\]: this fit has intervals of tau_m"):
        jl.advise_protocol(fit, parameters=["tau"])
    with pytest.raises(ValueError, match=r"parameters = \['v_th'\]: this fit has intervals of tau_m"):
        jl.advise_protocol(replace(fit, undetermined=("v_th",)), parameters=["v_th"])
    assert Advice(("noise",), ("tau_m",), np.array([[0.5]]), (1000.0,)).legend() == ["a  0.50  noise, 1 s"]
    with pytest.raises(ValueError, match=r"candidate 'empty' has the shape \(1, 0\)"):
        jl.advise_protocol(fit, {"empty": np.zeros(0)})
    known = fit.uncertainty
    turned = replace(fit, uncertainty=known._replace(names=known.names[::-1]))
    with pytest.raises(ValueError, match="uncertainty has the names delta_v, .*: the model's are tau_m, "):
        jl.advise_protocol(turned, {"again": noise(7)})
    with pytest.raises(ValueError, match="duration = -1 ms"):
        jl.advise_protocol(fit, duration=-1.0)


def test_more_information_narrows_also_what_another_direction_outshines():
    # Two coordinates that are nearly one, known apart by 3e-6 of their information; more tells of their sum.
    together, apart = np.ones((2, 2)), np.array([[1.0, -1.0], [-1.0, 1.0]])
    information = np.stack([together + 3e-6 * apart, np.zeros((2, 2))])
    more = np.stack([100.0 * together + 9e-6 * apart, np.zeros((2, 2))])
    # Four times the information apart, which is nearly all of a coordinate's variance: half the width.
    ratios = narrowed(information, more, np.zeros((2, 2)), (1.0, 1.0))
    np.testing.assert_allclose(ratios, 0.5, rtol=1e-4)
