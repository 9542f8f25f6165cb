"""The membrane and the spikes of a step family against simulated cells, alone and over repeated experiments."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import lfilter

import jaxlif as jl
from jaxlif.features import recording_features
from jaxlif.fitting.data import Data
from jaxlif.fitting.fit_recording import BOUNDS
from jaxlif.fitting.step_family import Baselines, Family
from jaxlif.fitting.step_membrane import fit_membrane, stretches
from jaxlif.fitting.step_spikes import Steps, fit_spikes, responses, steps_of

DT, STEPS = 1.0, np.array([-60.0, -40.0, -20.0, 20.0, 40.0, 60.0])
UNKNOWN = Baselines(np.full(6, np.nan), np.full(6, np.nan))
TRUTH = jl.LIFParams(tau_m=17.0, r_m=0.12, v_rest=-68.0, v_th=-51.0, v_reset=-60.0, t_ref=3.2)


def passive(noise, *, tau_m=55.0, r_m=0.2, held=-10.0):
    """Steps of 400 ms from a holding current, in a membrane with a rest of -70 mV; noise is [sweeps, T], mV."""
    current = np.full((6, 900), held)
    current[:, 200:600] += STEPS[:, None]
    kept = np.exp(-DT / tau_m)
    driven, _ = lfilter([1.0 - kept], [1.0, -kept], current, axis=1, zi=kept * current[:, :1])
    voltage = -70.0 + np.reshape(r_m, (-1, 1)) * driven + noise
    return Data(current, voltage, spikes=np.zeros(current.shape, bool), dt=DT)


def membrane(data):
    return fit_membrane(stretches(data, Family(data, data.spikes)), BOUNDS, UNKNOWN).estimate


def test_a_membrane_without_noise_comes_back_with_its_holding_current_taken_off():
    found = membrane(passive(np.zeros((6, 900))))
    np.testing.assert_allclose(found.values, [55.0, 0.2, -70.0], rtol=1e-5)
    assert found.intervals()["tau_m"] == pytest.approx((55.0, 55.0), rel=1e-4)


def test_a_baseline_that_wanders_is_no_time_constant_and_intervals_cover_the_truth():
    """Noise that lasts 300 ms, 1 mV of it, beside steps of 4 to 12 mV: the smallest alone would not show a tau_m."""
    random, kept = np.random.default_rng(0), np.exp(-DT / 300.0)
    found, inside = [], []
    for _ in range(40):
        white = random.normal(0.0, np.sqrt(1.0 - kept**2), (6, 900))
        wander, _ = lfilter([1.0], [1.0, -kept], white, axis=1, zi=random.normal(0.0, 1.0, (6, 1)))
        estimate = membrane(passive(wander + random.normal(0.0, 0.2, (6, 900))))
        found.append(estimate.values)
        pairs = estimate.intervals()
        inside.append([low < true < high for (low, high), true in zip(pairs.values(), (55.0, 0.2), strict=False)])
    tau_m, r_m, _ = np.median(found, axis=0)
    # Forty fits of some 20 % know their median to 4 %.
    assert tau_m == pytest.approx(55.0, rel=0.1) and r_m == pytest.approx(0.2, rel=0.1)
    # 95 %, of 40; they are of one more sweep where sweeps differ, and so rather wide than narrow.
    assert (np.mean(inside, axis=0) >= 0.87).all(), np.mean(inside, axis=0)


def test_the_interval_of_a_membrane_that_rectifies_holds_what_each_sweep_shows():
    r_m = np.array([0.14, 0.16, 0.18, 0.21, 0.22, 0.24])
    found = membrane(passive(np.random.default_rng(0).normal(0.0, 0.05, (6, 900)), r_m=r_m))
    low, high = found.intervals()["r_m"]
    assert low < r_m.min() and r_m.max() < high < 0.5


def test_steps_that_move_nothing_are_refused_in_one_line():
    quiet = passive(np.zeros((6, 900)))
    part = stretches(quiet, Family(quiet, quiet.spikes))
    still = replace(part, current=np.full(part.current.shape, -10.0))
    for nothing in (still, part.select(np.zeros(0, int))):
        with pytest.raises(ValueError, match="no step moves the voltage of a sweep away from its spikes"):
            fit_membrane(nothing, BOUNDS, UNKNOWN)


@pytest.mark.filterwarnings("ignore:the recorded current lies")
@pytest.mark.parametrize(
    "file",
    [
        "2019_07_24_0055_fsi.abf",
        "ferguson2015_PYR1.abf",
        "LantyerEtAl2018_180817_ME_9_CC.nwb",
        "dorsal_raphe/DRN159_5HT/current_steps.abf",
        "dorsal_raphe/DRN162_5HT/current_steps.abf",
    ],
)
def test_what_is_measured_without_a_model_lies_inside_the_intervals(data_folder, file):
    """Input resistance and time constant as eFEL and IPFX define them: of the smallest steps, late and at the onset."""
    pytest.importorskip("pyabf")
    pytest.importorskip("h5py")
    recording = jl.read_recording(data_folder / "recordings" / file)
    measured = recording_features(recording).cell
    data = Data.of(recording, jl.SpikeRule().find(recording))
    family = Family(data, data.spikes)
    found = fit_membrane(stretches(data, family), BOUNDS, family.baselines).estimate.intervals()
    for name, feature in (("r_m", "input_resistance"), ("tau_m", "time_constant")):
        low, high = found[name]
        assert low < measured[feature] < high, (name, measured[feature], found[name])


@pytest.fixture(scope="module")
def firing():
    levels = np.arange(-60.0, 421.0, 40.0)
    current = jnp.stack([jl.stimulus.step(level, 100.0, 600.0, 700.0, 0.1) for level in levels])
    _, output = jax.vmap(lambda i: jl.simulate(jl.LIF(dt=0.1), TRUTH, i))(current)
    return Data(np.asarray(current), np.asarray(output.v), spikes=np.asarray(output.spikes > 0), dt=0.1)


def test_expected_spikes_are_those_of_a_simulation(firing):
    steps = steps_of(Family(firing, firing.spikes))
    count, first = (np.asarray(x) for x in responses(TRUTH, steps))
    fires = steps.count > 0
    assert fires.sum() == 7 and (count[~fires] < 0.05).all()
    # Half a spike either way, and what the grid takes: it puts each up to 0.1 ms late, 0.05 on average.
    assert (np.abs(count - steps.count)[fires] < 0.5 + 0.0002 * steps.count[fires] ** 2 + 0.1).all()
    np.testing.assert_allclose(first[fires], steps.latency[fires] - 0.05, atol=0.051)


def test_spikes_give_the_threshold_back_and_pull_a_wrong_time_constant_to_theirs(firing):
    family = Family(firing, firing.spikes)
    known = fit_membrane(stretches(firing, family), BOUNDS, family.baselines).estimate
    wrong = known._replace(values=known.values * [1.3, 1.0, 1.0], covariance=np.diag([9.0, 1e-8, 1e-4]))
    start = replace(TRUTH, tau_m=1.3 * TRUTH.tau_m, v_th=-20.0, v_reset=-68.0, t_ref=1.0)
    with jax.enable_x64(True):
        found = fit_spikes(start, wrong, family, bounds=BOUNDS)
    assert found.params.tau_m == pytest.approx(17.0, rel=0.05) and found.params.v_th == pytest.approx(-51.0, abs=0.3)
    intervals = found.estimate.intervals()
    for name, (low, high) in intervals.items():
        assert low < getattr(TRUTH, name) < high, name
    assert intervals["tau_m"][1] > 1.3 * TRUTH.tau_m, "what the voltage said is an error of the model's"


def test_a_first_spike_after_others_is_no_latency(firing):
    spikes = np.array(firing.spikes)
    spikes[8, 900] = True
    before, after = (steps_of(Family(firing, x)) for x in (firing.spikes, spikes))
    assert np.isfinite(before.latency[8]) and np.isnan(after.latency[8])
    assert isinstance(after, Steps) and after.count.tolist() == before.count.tolist()
