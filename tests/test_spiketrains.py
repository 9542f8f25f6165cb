import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from jaxlif import spiketrains as st


def poisson_train(rng, rate, duration):
    return np.sort(rng.uniform(0.0, duration, rng.poisson(rate * duration / 1000.0)))


def small_trains(seed, duration=100.0, rate=80.0):
    rng = np.random.default_rng(seed)
    return [poisson_train(rng, rate, duration) for _ in range(3)]


# --- one train


def test_spike_time_is_the_end_of_its_step():
    np.testing.assert_array_equal(st.spike_times([1, 0, 0, 1], dt=0.5), [0.5, 2.0])


def test_raster_and_spike_times_are_inverse():
    spikes = (np.random.default_rng(0).random((5000, 3)) < 0.05).astype(float)
    spikes[[0, -1], 0] = 1.0  # the first and the last step too
    times = st.spike_times(spikes, dt=0.1)
    assert len(times) == 3
    for column, train in zip(spikes.T, times, strict=True):
        np.testing.assert_array_equal(st.on_grid(train, 0.1, 5000), column)


def test_raster_takes_times_off_the_grid_and_silence():
    np.testing.assert_array_equal(st.on_grid([0.01, 1.01], 1.0, 3), [1.0, 1.0, 0.0])
    np.testing.assert_array_equal(st.on_grid([], 1.0, 3), np.zeros(3))


@pytest.mark.parametrize("dt", [0.1, 0.3, 0.7])
def test_times_in_single_precision_keep_their_steps(dt):
    """Neither a raster nor a window of whole steps depends on how the times were rounded."""
    steps = np.arange(1, 20_001)
    double, single = steps * dt, steps.astype("f4") * np.float32(dt)
    np.testing.assert_array_equal(st.on_grid(single, dt, 20_000), np.ones(20_000))
    for train in (double, single):
        # Every fifth spike, and the same two steps later: all coincide at a window of two steps, none below.
        data, model = train[::5], train[2::5]
        met = [st.coincidence_factor(data, model, duration=1e7, delta=delta * dt) for delta in (2.0, 1.9)]
        assert met[0] == 1.0 and -2e-3 < met[1] < 0.0  # less than chance, which is rare in 1e7 ms
        assert st.coincidence_factor(train, train, duration=19_999 * dt, delta=0.0) == 1.0
        assert st.md_star([data, data], [model], delta=2.0 * dt) == 1.0


@pytest.mark.parametrize("train", [np.array([False, True, True]), ["1.0", "2.0"], [1.0 + 2.0j], [None]])
def test_what_is_no_list_of_times_is_refused(train):
    for call in (st.isi, lambda x: st.coincidence_factor(x, [], duration=9.0), lambda x: st.md_star([x, x], [x])):
        with pytest.raises(ValueError, match=r"^(times|data|data_trains\[0\]) (is|=) .* must be a"):
            call(train)


@pytest.mark.parametrize("bad", ["4", None, np.ones(2), -1.0, np.nan])
def test_what_is_no_number_is_refused(bad):
    calls = [
        lambda: st.coincidence_factor([1.0], [1.0], duration=10.0, delta=bad),
        lambda: st.coincidence_factor([1.0], [1.0], duration=bad),
        lambda: st.md_star([[1.0], [1.0]], [[1.0]], delta=bad),
        lambda: st.on_grid([1.0], dt=bad, num_steps=3),
        lambda: st.on_grid([1.0], dt=1.0, num_steps=bad),
        lambda: st.spike_times([0, 1], dt=bad),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"^(delta|duration|dt|num_steps) (=|has) ") as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("times", [[0.0, 1.0], [3.1], [1.1, 1.9], [2.0, 1.0], [np.nan], [[1.0]], 1.0, "1"])
def test_raster_refuses_what_it_cannot_hold(times):
    with pytest.raises(ValueError, match="times"):
        st.on_grid(times, 1.0, 3)


@pytest.mark.parametrize("spikes", [[10.0, 20.0], np.zeros((2, 2, 2)), 1.0, [np.nan]])
def test_spike_times_refuses_what_is_no_raster(spikes):
    with pytest.raises(ValueError, match="spikes"):
        st.spike_times(spikes, dt=0.1)


def test_intervals_and_cv():
    np.testing.assert_array_equal(st.isi([1.0, 4.0, 9.0]), [3.0, 5.0])
    assert st.isi([]).size == st.isi([1.0]).size == 0
    assert st.cv([1.0, 4.0, 9.0]) == 0.25
    assert st.cv(np.arange(10.0)) == 0.0
    assert np.isnan(st.cv([1.0, 4.0]))


def test_cv_of_a_poisson_train_is_one():
    train = poisson_train(np.random.default_rng(1), 20.0, 5e5)
    assert abs(st.cv(train) - 1.0) < 4.0 / np.sqrt(len(train))  # the standard error of the CV is 1/sqrt(n)


# --- coincidence factor


def matches(data, model, delta):
    """The oracle: an assignment problem, one-to-one by construction."""
    near = np.abs(np.subtract.outer(data, model)) <= delta
    return near[linear_sum_assignment(near, maximize=True)].sum()


@pytest.mark.parametrize("seed", range(20))
def test_matching_is_the_largest_one_to_one(seed):
    data, model, _ = small_trains(seed)
    for delta in (0.0, 1.0, 4.0, 15.0):
        assert st._matches(data, model, delta) == matches(data, model, delta)
        assert st._matches(model, data, delta) == matches(data, model, delta)


@pytest.mark.parametrize("delta", [0.0, 2.0, 4.0])
def test_identical_trains_score_exactly_one(delta):
    for train in small_trains(0, rate=40.0):
        assert st.coincidence_factor(train, train, duration=100.0, delta=delta) == 1.0


def test_coincidence_factor_by_hand():
    # 2 matches, nu = 4 Hz, 2 nu delta = 0.032, chance = 0.096; (2 - 0.096) / 3.5 / 0.968
    gamma = st.coincidence_factor([10.0, 50.0, 90.0], [12.0, 54.0, 70.0, 200.0], duration=1000.0)
    assert gamma == pytest.approx(1.904 / 3.5 / 0.968, rel=1e-14)


def test_a_burst_beside_one_spike_counts_once():
    burst = [98.0, 99.0, 100.0, 101.0, 102.0]
    gamma = st.coincidence_factor([100.0], burst, duration=1000.0)
    assert gamma == pytest.approx((1.0 - 0.04) / 3.0 / 0.96, rel=1e-14)
    # nor do two recorded spikes share one of the model's
    assert st._matches(np.array([99.0, 101.0]), np.array([100.0]), 4.0) == 1


@pytest.mark.parametrize("dt", [0.1, 0.2, 0.3])
def test_the_window_is_closed_on_any_grid(dt):
    """For each of these dt some of the differences of whole steps round to more than the window."""
    spikes, steps = np.arange(100, 30000, 137), round(4.0 / dt)
    data, edge, outside = spikes * dt, (spikes + steps) * dt, (spikes + steps + 1) * dt
    for count in (st._matches, st._pairs):
        assert count(data, edge, steps * dt) == count(edge, data, steps * dt) == len(data)
        assert count(data, outside, steps * dt) == count(outside, data, steps * dt) == 0


def test_unrelated_and_shifted_trains_score_near_zero():
    rng = np.random.default_rng(2)
    data, other = (poisson_train(rng, 10.0, 2e5) for _ in range(2))
    # The count of chance matches has a standard error of about sqrt(0.08 n) of n = 2000: 0.006. One-to-one
    # matching of two Poisson trains loses a share of up to 2 nu delta = 0.08 of the 0.08 expected.
    for model in (other, data + 50.0, np.maximum(data - 500.0, 0.0)):
        assert abs(st.coincidence_factor(data, model, duration=2e5 + 50.0)) < 4 * 0.006 + 0.08**2


def test_silent_trains():
    assert np.isnan(st.coincidence_factor([], [], duration=100.0))
    assert st.coincidence_factor([10.0], [], duration=100.0) == 0.0
    assert st.coincidence_factor([], [10.0], duration=100.0) == 0.0


def test_undefined_where_chance_meets_every_spike():
    train = np.arange(4.0, 1000.0, 8.0)  # 125 Hz: 2 nu delta = 1
    assert np.isnan(st.coincidence_factor(train, train, duration=1000.0))
    assert st.coincidence_factor(train, train, duration=1000.0, delta=3.9) == 1.0


def test_means_over_repeats():
    trains = small_trains(3, duration=1000.0, rate=20.0)

    def gamma(i, j):
        return st.coincidence_factor(trains[i], trains[j], duration=1000.0, delta=8.0)

    pairs = [0.5 * (gamma(i, j) + gamma(j, i)) for i, j in [(0, 1), (0, 2), (1, 2)]]
    assert st.reliability(trains, duration=1000.0, delta=8.0) == pytest.approx(np.mean(pairs), rel=1e-13)
    mean = st.mean_coincidence_factor(trains[:2], trains[1:], duration=1000.0, delta=8.0)
    expected = np.mean([gamma(0, 1), gamma(0, 2), gamma(1, 1), gamma(1, 2)])
    assert mean == pytest.approx(expected, rel=1e-13)
    assert st.reliability([trains[0]] * 4, duration=1000.0) == 1.0


def test_reliability_is_higher_for_less_jitter():
    rng = np.random.default_rng(4)
    source = np.arange(50.0, 10000.0, 50.0)
    scores = [
        st.reliability([np.sort(source + rng.normal(0.0, jitter, source.shape)) for _ in range(5)], duration=1e4)
        for jitter in (0.5, 2.0, 5.0, 20.0)
    ]
    assert scores[0] > 0.99 and np.all(np.diff(scores) < 0)


# --- Md*


def pairs(first, second, delta):
    return (np.abs(np.subtract.outer(first, second)) <= delta).sum()


def md_star(data, model, delta):
    """The oracle: every pair of repeats, every pair of spikes."""

    def norm(trains):
        if len(trains) == 1:
            return pairs(trains[0], trains[0], delta)
        return np.mean([pairs(a, b, delta) for i, a in enumerate(trains) for b in trains[:i]])

    return 2 * np.mean([pairs(a, b, delta) for a in data for b in model]) / (norm(data) + norm(model))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("delta", [0.5, 2.0, 4.0, 30.0])
def test_md_star_equals_the_double_loop(seed, delta):
    data = small_trains(seed, rate=200.0) + [np.array([])]
    for model in (small_trains(seed + 100), small_trains(seed + 200)[:1], data[:2]):
        expected = md_star(data, model, delta)
        np.testing.assert_allclose(st.md_star(data, model, delta=delta), expected, rtol=1e-14)


def test_md_star_by_hand():
    # C_dd = (2 + 1 + 1) / 3, C_mm = 2 of one train, cross = (1 + 1 + 1) / 3
    value = st.md_star([[10.0, 50.0], [12.0, 50.0], [11.0, 80.0]], [[11.0, 70.0]])
    assert value == pytest.approx(2.0 / (4.0 / 3.0 + 2.0), rel=1e-14)


def test_md_star_is_one_for_the_same_density_and_zero_for_another():
    rng = np.random.default_rng(6)
    source = np.arange(50.0, 20000.0, 50.0)

    def repeats(count, shift=0.0):
        # Each event is kept with probability 0.6: trains of one density that are far from identical.
        keep = rng.random((count, len(source))) < 0.6
        return [np.sort(source[row] + shift + rng.normal(0.0, 2.0, row.sum())) for row in keep]

    data, model = repeats(5), repeats(50)
    # A mean over 400 events of 5 repeats; one event's share varies by sqrt(0.4 / 0.6 / 5) = 0.37 at most.
    assert abs(st.md_star(data, model) - 1.0) < 4 * 0.37 / np.sqrt(len(source))
    assert st.md_star(data, repeats(50, shift=25.0)) == 0.0
    # A deterministic model of the same rate has a larger norm, and scores less.
    assert st.md_star(data, model[:1]) < 0.8


def test_md_star_where_it_is_undefined():
    assert np.isnan(st.md_star([[], []], [[]]))
    assert st.md_star([[1.0], [50.0]], [[100.0]]) == 0.0
    with pytest.raises(ValueError, match="data_trains has 1 repeats"):
        st.md_star([[1.0, 2.0]], [[1.0]])
    with pytest.raises(ValueError, match="model_trains has 0 repeats"):
        st.md_star([[1.0], [2.0]], [])


# --- refusals


@pytest.mark.parametrize(
    "bad, message",
    [
        ([2.0, 1.0], "not sorted"),
        ([1.0, np.nan], "must be finite"),
        ([np.inf], "must be finite"),
        ([[1.0, 2.0]], r"shape \(1, 2\)"),
        (1.0, r"shape \(\)"),
    ],
)
def test_bad_trains_are_refused_by_name(bad, message):
    calls = {
        "data": [lambda: st.coincidence_factor(bad, [1.0], duration=10.0)],
        "model": [lambda: st.coincidence_factor([1.0], bad, duration=10.0)],
        "times": [lambda: st.isi(bad), lambda: st.cv(bad)],
        r"trains\[1\]": [
            lambda: st.reliability([[1.0], bad], duration=10.0),
            lambda: st.md_star([[1.0], bad], [[1.0]]),
        ],
    }
    for name, some in calls.items():
        for call in some:
            with pytest.raises(ValueError, match=f"{name}.* {message}"):
                call()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: st.coincidence_factor([1.0, 9e3], [1.0], duration=10.0), "duration = 10 ms is shorter"),
        (lambda: st.coincidence_factor([1.0], [1.0, 9e3], duration=10.0), "duration = 10 ms is shorter"),
        (lambda: st.reliability([[1.0]], duration=10.0), "trains has 1 repeats"),
        (lambda: st.coincidence_factor([1.0], [1.0], duration=0.0), "duration = 0 ms"),
    ],
)
def test_bad_options_are_refused(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
