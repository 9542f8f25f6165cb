"""The forced neuron in lanes against stepping through TeacherForced; the loss and its pieces against plain loops."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.fitting import lanes as in_lanes
from jaxlif.fitting.data import Data, Drift
from jaxlif.fitting.joint_likelihood import JointLoss, spike_bits
from jaxlif.fitting.lanes import cut_lanes, forced
from jaxlif.neurons.a_current import ACurrent

DT, SWEEPS, STEPS, REFRACTORY = 0.5, 3, 1000, 4
PARAMS = jl.AdaptiveLIFParams(
    tau_m=12.0, r_m=0.1, v_rest=-68.0, v_th=-52.0, v_reset=-60.0, t_ref=2.0, delta_v=1.5,
    eta=(20.0, -5.0), tau_eta=(5.0, 80.0), gamma=(4.0,), tau_gamma=(50.0,), a=(1.0,), tau_a=(10.0,),
    coupling=jl.VoltageCoupling(),
    mechanisms=(jl.MembraneCurrent(a=2.0, tau=9.0, v_i=-58.0), ACurrent(g=2.0, tau_h=8.0)),
)  # fmt: skip
CELL = jl.TeacherForced(jl.AdaptiveLIF(dt=DT))
FORCED = jax.jit(forced, static_argnums=2)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    current, voltage = (mean + sd * rng.standard_normal((SWEEPS, STEPS)) for mean, sd in ((150.0, 100.0), (-60.0, 3.0)))
    spikes = rng.random((SWEEPS, STEPS)) < 0.02
    spikes[0, [50, 299, 599]] = spikes[1, [0, STEPS - 1]] = True  # beside where lanes will begin, and at the ends
    for n in range(STEPS):  # none while refractory
        spikes[:, n] &= ~spikes[:, max(0, n - REFRACTORY) : n].any(axis=1)
    return Data(current, voltage, spikes=spikes, dt=DT)


@jax.jit
def stepped(params, current, start, spikes):
    """Return voltages before the reset and thresholds, step by step, [T, S]."""
    inputs = jl.Forced(current, spikes)
    state = CELL.init_state(replace(params, v_rest=start), jax.tree.map(lambda x: x[0], inputs))

    def step(state, x):
        ahead, _ = CELL.neuron.integrate(params, state, x.input)
        state, output = CELL.step(params, state, x)
        return state, (output.v_before, params.v_th + CELL.neuron.rise(params, ahead))

    return jax.lax.scan(step, state, inputs)[1]


def traces(params, data):
    """Return voltage and threshold of the loop over time, [S, T]."""
    rows = data.current.T, data.voltage[:, 0], data.spikes.T.astype(float)
    return tuple(np.asarray(y).T for y in stepped(jax.tree.map(jnp.asarray, params), *map(jnp.asarray, rows)))


def free_to_spike(spikes):
    """Say by a loop where a neuron is not refractory."""
    free = np.ones(spikes.shape, bool)
    for s, n in zip(*np.nonzero(spikes), strict=True):
        free[s, n + 1 : n + 1 + REFRACTORY] = False
    return free


def away(spikes):
    """Say by a loop which voltages count: neither 5 ms before a spike nor while the neuron is held after it."""
    clear = np.ones(spikes.shape, bool)
    for s, n in zip(*np.nonzero(spikes), strict=True):
        clear[s, max(0, n - 10) : n + REFRACTORY + 1] = False
    return clear


def short_lanes(monkeypatch, warm_up, part=2500):
    """Cut lanes of 150 ms, a few in a part."""
    for name, value in {"LENGTH": 150.0, "WARM_UP": warm_up, "PART": part}.items():
        monkeypatch.setattr(in_lanes, name, value)


def put_back(data, parts, values, counts):
    """Return what lanes hold where they count, [S, T], and how often each sample is held; its voltage tells it."""
    whole, held = np.zeros(data.voltage.shape), np.zeros(data.voltage.shape, int)
    place = {v: index for index, v in np.ndenumerate(data.voltage)}
    for part, value, count in zip(parts, values, counts, strict=True):
        for n in np.argwhere(np.asarray(count) > 0):
            index = place[float(part.voltage[tuple(n)])]
            whole[index] = value[tuple(n)]
            held[index] += 1
    return whole, held


@pytest.mark.parametrize("t_ref", [2.0, 2.2, 0.0])
def test_one_lane_for_a_sweep_is_the_loop_over_time(data, t_ref):
    """Refractory periods on the grid, between its steps and of no time."""
    params = replace(PARAMS, t_ref=t_ref)
    (lanes,) = cut_lanes(data, params, "float64")
    for fast, slow in zip(FORCED(params, lanes, DT), traces(params, data), strict=True):
        # Only the order of additions differs: 1e-10 mV is a thousand roundings of -60 mV.
        np.testing.assert_allclose(np.asarray(fast).T[: len(slow)], slow, rtol=0, atol=1e-10)


def test_lanes_know_where_each_sweep_rests_and_what_its_current_is(data):
    drift = Drift(np.array([1.0, -0.5, 2.0]), np.array([1.1, 0.9, 1.0]))
    (lanes,) = cut_lanes(replace(data, drift=drift), PARAMS, "float64")
    v = np.asarray(FORCED(PARAMS, lanes, DT)[0]).T
    # In a sweep that rests elsewhere the membrane alone is another's: subthreshold adaptation counts from v_rest.
    for n, (offset, gain) in enumerate(zip(drift.offset, drift.gain, strict=True)):
        shifted = replace(data.select([n]), current=gain * data.current[n : n + 1] + offset / PARAMS.r_m)
        np.testing.assert_allclose(v[n : n + 1], traces(PARAMS, shifted)[0], rtol=0, atol=1e-10)


def test_lanes_agree_with_the_whole_but_for_what_their_warm_up_has_not_forgotten(data, monkeypatch):
    short_lanes(monkeypatch, warm_up=150.0)
    parts = cut_lanes(data, PARAMS, "float64")
    assert len(parts) > 1 and len({part.current.shape for part in parts}) == 1
    free, clear = free_to_spike(data.spikes), away(data.spikes)
    for name, mask in (("active", free), ("compared", clear), ("judged", data.spikes)):
        counts = [getattr(part, name) for part in parts]
        whole, held = put_back(data, parts, counts, counts)
        # Each sample counts once, in a single lane; those that only fill up the last part count nothing.
        np.testing.assert_array_equal(held, mask, err_msg=name)
        np.testing.assert_array_equal(whole, mask, err_msg=name)
    found = [FORCED(PARAMS, part, DT) for part in parts]
    for n, slow in enumerate(traces(PARAMS, data)):
        whole, _ = put_back(data, parts, [np.asarray(x[n]) for x in found], [part.active for part in parts])
        # Some 10 mV at their beginning, 150 ms before, of which the slowest of 12 ms has left e^-12.
        np.testing.assert_allclose(whole[free], slow[free], rtol=0, atol=1e-4)


def test_a_lane_that_begins_after_a_spike_is_held_at_the_reset(data, monkeypatch):
    short_lanes(monkeypatch, warm_up=0.0, part=10**6)
    (lanes,) = cut_lanes(data, PARAMS, "float64")
    v, spikes = np.asarray(FORCED(PARAMS, lanes, DT)[0]), data.spikes
    held = 0
    for lane, first in enumerate(np.asarray(lanes.voltage[0])[np.asarray(lanes.active).any(axis=0)]):
        sweep, begin = (int(n) for n in np.argwhere(data.voltage == first)[0])
        since = np.flatnonzero(spikes[sweep, max(0, begin - REFRACTORY) : begin][::-1])
        left = REFRACTORY - int(since[0]) if since.size else 0
        held += left > 0
        assert (v[:left, lane] == PARAMS.v_reset).all() and v[left, lane] != PARAMS.v_reset, (sweep, begin)
        assert not np.asarray(lanes.active[:left, lane]).any() and lanes.active[left, lane] == 1.0
    assert held >= 2  # spikes at the last steps of two lanes of the first sweep


def plain_score(params, data):
    """Return log-likelihood, squares and compared samples by a loop over time in double precision."""
    v, threshold = traces(params, data)
    free, clear = free_to_spike(data.spikes), away(data.spikes)
    expected = 0.0
    for s, n in np.ndindex(*v.shape):
        mean = DT * params.lambda_0 * np.exp((v[s, n] - threshold[s, n]) / params.delta_v)
        expected += np.log(-np.expm1(-mean)) if data.spikes[s, n] else -mean * free[s, n]
    return expected, ((v - data.voltage)[clear] ** 2).sum(), clear.sum()


@pytest.fixture(scope="module")
def loss(data):
    with in_lanes.single_precision():
        return JointLoss(PARAMS, cut_lanes(data, PARAMS), DT)


def test_the_loss_is_that_of_the_steps_and_the_priors(data, loss):
    likelihood, squares, compared = plain_score(PARAMS, data)
    value, score = loss(loss.start)
    # Voltages of -60 mV in single precision are good to 1e-5 mV, sums of 3000 terms to 1e-5 of them.
    assert score.log_likelihood == pytest.approx(likelihood, rel=3e-5)
    assert score.squares == pytest.approx(squares, rel=3e-5) and score.compared == compared
    # A sample of voltage counts as dt / 50 ms of one that knows nothing of its neighbours.
    unseen = 0.5 * (DT / 50.0) * compared * np.log(squares / compared) - likelihood
    left = np.exp(-2.0 / np.array([5.0, 80.0, 50.0]))  # of a jump, when the refractory period ends
    jumps = np.array([0.1 * 20.0, 0.1 * -5.0, 4.0]) * left / 25.0
    bends = (np.log(1.5) - 0.7) / 1.0, 0.2 / 1.0, (np.log(3.0) - 1.1) / 1.0, 0.1 * 2.0 / 3.0
    priors = 0.5 * (sum(x**2 for x in bends) + (jumps**2).sum())
    assert value == pytest.approx(unseen + priors, rel=3e-5)
    moved = replace(PARAMS, tau_m=24.0, v_th=-42.0, mechanisms=(PARAMS.mechanisms[0], ACurrent(g=4.0, tau_h=8.0)))
    more, there = loss(loss.coordinate.vector(moved))
    # From where the fit starts: log 2 over 2, 10 mV over 30, log 2 over 2.
    away = 0.5 * (2.0 * (np.log(2.0) / 2.0) ** 2 + (10.0 / 30.0) ** 2)
    assert more - loss.unseen(there) == pytest.approx(priors + away, abs=1e-3)  # of a loss of thousands


def test_parameters_come_back_from_their_coordinates(loss):
    found = loss.params(loss.start)
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(PARAMS), strict=True):
        assert one == pytest.approx(two, rel=1e-6)
    # What has no prior is not free, nor what spikes and voltages do not tell.
    fixed = {"t_ref", "lambda_0", "tau_eta.0", "a.0", "tau_a.0", "mechanisms.0.k", "mechanisms.1.e_k"}
    assert not fixed & set(loss.coordinate.names)
    assert {"coupling.k", "mechanisms.0.a", "mechanisms.1.tau_h", "v_rest", "eta.1"} <= set(loss.coordinate.names)


def test_bits_are_those_above_a_train_of_the_same_rate(data):
    likelihood, count = plain_score(PARAMS, data)[0], data.spikes.sum()
    poisson = count * np.log(count / (SWEEPS * STEPS * DT)) - count
    bits = (likelihood - count * np.log(DT) - poisson) / (count * np.log(2.0))
    assert spike_bits(PARAMS, data) == pytest.approx(bits, abs=1e-3)  # of single precision
    silent = replace(data, spikes=data.spikes & (np.arange(STEPS) < 500))
    assert spike_bits(PARAMS, silent, slice(600, 900)) is None


def test_a_spike_within_the_refractory_period_counts_against_the_model(data):
    """As in ``point_process_log_likelihood``: a burst faster than the model can is never left out."""
    burst = data.spikes.copy()
    burst[0, [700, 702]], burst[0, 690:700], burst[0, [701, *range(703, 712)]] = True, False, False
    fast = replace(data, spikes=burst)
    assert spike_bits(PARAMS, fast) == pytest.approx(
        (plain_score(PARAMS, fast)[0] - burst.sum() * (np.log(DT) + np.log(burst.sum() / 1500.0) - 1.0))
        / (burst.sum() * np.log(2.0)),
        abs=1e-3,
    )


def slopes(loss, data):
    """Return how voltage and log-rate change with each coordinate, [2, P, S, T], by differences in double precision."""
    fixed = jax.tree.map(float, loss.fixed)

    def responses(vector):
        params = loss.coordinate.params(jnp.asarray(vector, jnp.float64), fixed)
        v, threshold = traces(params, data)
        return np.stack([v, (v - threshold) / float(params.delta_v)])

    steps = 1e-5 * np.eye(len(loss.start))
    return np.stack([(responses(loss.start + h) - responses(loss.start - h)) / 2e-5 for h in steps], axis=1)


def test_scores_are_the_slope_and_information_is_the_expected_curvature(data, loss):
    _, score = loss(loss.start)
    found = loss.pieces(loss.start, score)
    (of_voltage, of_rate), (v, threshold) = slopes(loss, data), traces(PARAMS, data)
    free, clear = free_to_spike(data.spikes), away(data.spikes)
    mean = DT * np.exp((v - threshold) / 1.5)
    spike = -np.expm1(-mean)  # the probability of one
    odds = mean * (1.0 - spike) / spike  # by which a spike's log-probability grows with the log-rate
    weight = (DT / 50.0) * clear.sum() / ((v - data.voltage)[clear] ** 2).sum()
    residuals = weight * clear * (data.voltage - v), np.where(data.spikes, odds, -mean * free)
    variances = weight * clear, free * (spike * odds**2 + (1.0 - spike) * mean**2)
    for n, of in enumerate((of_voltage, of_rate)):
        information = np.einsum("pst,st,qst->pq", of, variances[n], of)
        size = np.maximum(np.sqrt(np.diag(information)), 1e-4)  # the voltage tells nothing of the threshold
        # In standard errors, a thousandth of which single precision and the cancelling of its terms leave uncertain.
        np.testing.assert_allclose((found.information[n] - information) / np.outer(size, size), 0.0, atol=1e-3)
        slope = np.einsum("pst,st->p", of, residuals[n])
        np.testing.assert_allclose(
            (found.scores[n].sum(axis=0) - slope) / size, 0.0, atol=1e-3 * np.abs(slope / size).max()
        )
