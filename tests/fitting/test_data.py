"""The container of a fit: its parts hold what the whole holds, and segments of it change no number."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.fitting import data as segments
from jaxlif.fitting.data import Data, Drift, Options, with_spikes
from jaxlif.fitting.membrane import (
    Columns,
    ForcedVoltageLoss,
    columns,
    forced,
    forced_segments,
    profile_refractory,
    slopes_and_errors,
)
from jaxlif.fitting.prediction import _blocks, free_response, noisy_response
from jaxlif.fitting.threshold import _free_times, _many

DT, STEPS = 0.5, 150
CELL = jl.LIF(dt=DT)
TRUTH = jl.LIFParams(tau_m=12.0, t_ref=2.0)
NAMES = ("tau_m", "r_m", "v_rest", "v_reset")


@pytest.fixture(scope="module")
def four():
    """Four sweeps of 103 samples, no two numbers alike, with a spike in each."""
    rows = np.arange(4 * 103.0).reshape(4, 103)
    spikes = np.zeros(rows.shape, bool)
    spikes[range(4), [10, 40, 70, 100]] = True
    recording = jl.Recording(rows, -rows / 10.0, dt=0.1, start=5.0, stimulus=["a", "a", "b", "b"])
    drift = Drift(np.arange(4.0), 1.0 + np.arange(4.0))
    return Data.of(recording, spikes, drift=drift, judged=rows % 7 > 0)


def test_a_part_holds_what_the_whole_holds_there(four):
    part = four.select([3, 1]).window(6.0, 9.0)
    assert (part.start, part.num_steps, part.stimulus) == (6.0, 30, ["b", "a"])
    for name in ("current", "voltage", "spikes", "judged"):
        np.testing.assert_array_equal(getattr(part, name), getattr(four, name)[[3, 1], 10:40], err_msg=name)
    assert part.drift.offset.tolist() == [3.0, 1.0] and part.drift.gain.tolist() == [4.0, 2.0]
    assert four.samples((6.0, 9.0)) == slice(10, 40) and four.select(range(4)) is four


def test_coarser_data_hold_means_of_the_current_ends_of_the_voltage_and_every_spike(four):
    coarse = four.coarser()  # at 0.2 ms, the largest multiple of 0.1 ms up to 0.25 ms; the last sample has no partner
    assert coarse.dt == 0.2 and coarse.num_steps == 51 and coarse.coarser() is coarse
    np.testing.assert_array_equal(coarse.current[:, 7], 0.5 * (four.current[:, 14] + four.current[:, 15]))
    np.testing.assert_array_equal(coarse.voltage[:, 7], four.voltage[:, 15])
    assert np.argwhere(coarse.spikes).tolist() == [[0, 5], [1, 20], [2, 35], [3, 50]]
    assert coarse.judged[0, :5].tolist() == [False, True, True, False, True], "both of its samples"


def test_a_window_without_spikes_or_without_samples_is_refused(four):
    assert with_spikes(four, (5.0, 7.0)).num_steps == 20
    with pytest.raises(ValueError, match="window = 5 to 6 ms: no spike falls into this window"):
        with_spikes(four, (5.0, 6.0))
    with pytest.raises(ValueError, match="window = 5 to 5.1 ms: give at least two samples"):
        four.window(5.0, 5.1)


def test_a_start_is_put_inside_its_bounds():
    options = Options((0.0, 1.0), {"tau_m": (5.0, 15.0), "r_m": (0.1, 0.3)})
    assert options.inside(tau_m=6.0, r_m=0.3) == {"tau_m": 6.0, "r_m": 0.2}


@pytest.fixture(scope="module")
def recording():
    rng = np.random.default_rng(0)
    current = rng.normal(300.0, 150.0, (2, STEPS))
    _, output = jl.simulate(CELL, TRUTH, current.T)
    voltage = np.asarray(output.v).T + rng.normal(0.0, 0.3, current.shape)
    return jl.Recording(current, voltage, dt=DT, spikes=np.asarray(output.spikes).T > 0)


@pytest.fixture(scope="module")
def data(recording):
    return Data.of(recording, recording.spikes).judging(
        jl.losses.spike_mask(recording.spikes.T, before=1, after=3).T > 0
    )


@pytest.fixture(params=[2**15, 64])
def segment(request, monkeypatch):
    """One segment, filled up from 150 steps to 160, or three of 64."""
    monkeypatch.setattr(segments, "SEGMENT", request.param)


def test_lengths_are_few_and_at_most_a_quarter_more():
    lengths = np.arange(1, 5000)
    padded = np.array([segments.padded_length(int(n)) for n in lengths])
    assert (padded >= lengths).all() and (padded[4:] <= 1.25 * lengths[4:]).all()
    assert len(np.unique(padded[1023:4096])) == 8 + 1


def test_forced_and_free_voltages_are_those_of_one_run(recording, data, segment):
    whole = forced(CELL, TRUTH, jax.tree.map(jnp.asarray, columns(data)))
    pieces = list(forced_segments(CELL, TRUTH, columns(data)))
    assert [n for place, _ in pieces for n in range(place.start, place.stop)] == list(range(STEPS))
    for field in ("v", "v_before"):
        np.testing.assert_array_equal(np.concatenate([getattr(x, field) for _, x in pieces]), getattr(whole, field))
    _, output = jl.simulate(CELL, TRUTH, recording.current.T)
    found = free_response(TRUTH, recording)
    np.testing.assert_array_equal(found.spikes.T, output.spikes > 0)
    np.testing.assert_array_equal(found.voltage.T, output.v)


def test_candidates_spike_as_they_do_alone(recording, segment):
    thresholds = np.array([-57.0, 0.0, -53.0])  # the middle one is never reached
    trains = _free_times(CELL, _many(TRUTH, v_th=thresholds), recording.current[0])
    for v_th, train in zip(thresholds, trains, strict=True):
        _, output = jl.simulate(CELL, replace(TRUTH, v_th=float(v_th)), recording.current[0])
        np.testing.assert_allclose(train, jl.spiketrains.spike_times(output.spikes, DT), rtol=1e-15)
    assert len(trains[0]) > len(trains[2]) > 0 == len(trains[1])


def test_slopes_and_errors_are_those_of_the_whole_jacobian(data, segment):
    values = np.array([getattr(TRUTH, name) for name in NAMES]) * 1.01
    found = slopes_and_errors(NAMES, replace(TRUTH, **dict(zip(NAMES, values.tolist(), strict=True))), data)
    held = jax.tree.map(jnp.asarray, columns(data))

    def residual(values):
        v = forced(CELL, replace(TRUTH, **dict(zip(NAMES, values, strict=True))), held).v
        return (v - held.voltage) * jnp.asarray(held.mask, float)

    slopes = np.array(jax.jacfwd(residual)(jnp.asarray(values))).transpose(2, 1, 0)
    errors = np.array(residual(jnp.asarray(values))).T
    errors[:, 0] = slopes[..., 0] = 0.0  # the first sample is as it was recorded
    np.testing.assert_allclose(found[1], errors, rtol=1e-10, atol=1e-12)
    # Central differences: steps of 1e-4 leave 1e-8 of a curve, and roundings of 60 mV over them 1e-10.
    np.testing.assert_allclose(found[0], slopes, rtol=1e-7, atol=1e-8)


def test_the_profile_does_not_depend_on_the_segments(data, monkeypatch):
    found = []
    for size in (2**15, 64):
        monkeypatch.setattr(segments, "SEGMENT", size)
        found.append(profile_refractory(TRUTH, data, np.array([1.0, 2.0, 3.0])))
    np.testing.assert_allclose(found[0].solutions, found[1].solutions, rtol=1e-8)
    np.testing.assert_allclose(found[0].errors, found[1].errors, rtol=1e-8)


def test_the_numbers_of_a_noisy_response_do_not_depend_on_how_many_run_side_by_side(recording, monkeypatch):
    params = jl.AdaptiveLIFParams(**vars(TRUTH), delta_v=2.0, lambda_0=0.5)
    together = noisy_response(params, recording, repeats=3, seed=0).spikes
    monkeypatch.setattr("jaxlif.fitting.prediction.LANES", 2)
    np.testing.assert_array_equal(noisy_response(params, recording, repeats=3, seed=0).spikes, together)
    assert together.any() and not together.all()


def test_lengths_of_one_bucket_share_their_programs(caplog):
    """The same fit on a little more of the recording compiles nothing of the recipe's own."""
    rng = np.random.default_rng(1)
    current = rng.normal(150.0, 100.0, 102).repeat(20)
    _, output = jl.simulate(CELL, TRUTH, current)
    voltage, spikes, fits = np.asarray(output.v), np.asarray(output.spikes), []
    for steps in (1950, 2040):
        part = jl.Recording(current[:steps], voltage[:steps], dt=DT, spikes=spikes[:steps])
        caplog.clear()
        with jax.log_compiles():
            fits.append(jl.fit_recording(part))
        compiled = [r.getMessage() for r in caplog.records if "Finished XLA compilation" in r.getMessage()]
    assert not compiled
    assert fits[0].params.tau_m == pytest.approx(fits[1].params.tau_m, rel=1e-3)


def test_a_sample_of_a_gradient_takes_few_bytes():
    """Recording, copy on the device and temporaries of the loss's gradient: below 100 B of a sample together."""
    steps = 20_480
    floats, booleans = (jax.ShapeDtypeStruct((steps, 1), kind) for kind in (jnp.float64, bool))
    loss = jax.value_and_grad(ForcedVoltageLoss(CELL))
    memory = jax.jit(loss).lower(TRUTH, Columns(floats, floats, booleans, booleans)).compile().memory_analysis()
    held = 17 * steps  # current and voltage of the recording, its spikes
    assert held + memory.argument_size_in_bytes + memory.temp_size_in_bytes < 100 * steps


def test_a_fit_that_memory_cannot_hold_is_refused_before_it_begins(recording, monkeypatch):
    monkeypatch.setattr("jaxlif.files.memory_at_hand", lambda: 20_000)
    with pytest.raises(
        ValueError, match='^a fit of "lif" to 300 samples would need 3e-05 GB: 2e-05 GB of memory are free'
    ):
        jl.fit_recording(recording)


def test_a_mask_of_booleans_at_hand_stays_at_hand_inside_a_transformation(data):
    """The fit's own call: the loss is traced, and what it compares with is not."""
    held = jax.tree.map(jnp.asarray, columns(data))
    loss = jax.eval_shape(lambda tau_m: ForcedVoltageLoss(CELL)(replace(TRUTH, tau_m=tau_m), held), jnp.asarray(12.0))
    assert loss.shape == ()


def test_a_long_response_in_pieces_is_that_of_one_run(monkeypatch):
    """The same noise at the same time: what differs when a piece begins is forgotten within its first block."""
    params = jl.AdaptiveLIFParams(
        **vars(TRUTH), eta=(20.0,), tau_eta=(100.0,), gamma=(2.0,), tau_gamma=(50.0,), delta_v=2.0, lambda_0=0.5
    )
    current = np.random.default_rng(2).normal(200.0, 100.0, (1, 1200)).repeat(10, axis=1)
    recording = jl.Recording(current=current, dt=0.5)
    monkeypatch.setattr("jaxlif.fitting.prediction.ONWARD", 1)
    pieces = noisy_response(params, recording, repeats=2, seed=0)
    monkeypatch.setattr("jaxlif.fitting.prediction.ONWARD", 10**6)
    whole = noisy_response(params, recording, repeats=2, seed=0)
    assert whole.spikes.sum() > 200
    # Voltages that are 1e-5 mV apart may cross a threshold a step apart: one spike in a hundred at most.
    assert (pieces.spikes != whole.spikes).sum() <= 0.02 * whole.spikes.sum()
    assert np.median(np.abs(pieces.voltage - whole.voltage)) < 1e-4


def test_no_two_blocks_of_a_long_response_have_the_same_noise():
    params = jl.AdaptiveLIFParams(**vars(TRUTH), delta_v=2.0, lambda_0=0.5)
    recording = jl.Recording(current=np.full((1, 12_000), 200.0), dt=0.5)
    length, _ = _blocks(params, recording)
    spikes = noisy_response(params, recording, repeats=1, seed=0).spikes[0, 0]
    rows = spikes[: len(spikes) // length * length].reshape(-1, length)[1:]  # the first starts from rest
    assert len(rows) >= 3 and rows.sum(axis=1).min() > 50
    # By chance a spike meets one of another block with its probability in a step, some 5 %; with the same noise always.
    assert max((a & b).sum() / a.sum() for a, b in itertools.combinations(rows, 2)) < 0.3
