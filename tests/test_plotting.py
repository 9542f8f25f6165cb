"""Figures draw the numbers that they are given, name every axis, and refuse shapes that do not fit together."""

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from jaxlif import plotting

T = np.arange(1, 11) * 0.1
V = np.where(np.arange(10) == 6, -65.0, np.linspace(-70.0, -56.0, 10))
SPIKES = np.where(np.arange(10) == 6, 1.0, 0.0)


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def drawn(line):
    return np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)


def legend_texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_spike_is_drawn_for_one_step_only():
    x, y = drawn(plotting.trace(T, V, SPIKES).lines[0])
    np.testing.assert_array_equal(x, T)
    np.testing.assert_array_equal(y, [*V[:6], 20.0, *V[7:]])
    np.testing.assert_array_equal(drawn(plotting.trace(T, V).lines[0])[1], V)


def test_trace_draws_each_neuron_with_its_own_spikes_and_properties():
    spikes = np.stack([SPIKES, np.roll(SPIKES, 1)], axis=1)
    ax = plotting.trace(T, np.stack([V, V - 1.0], axis=1), spikes, color="black", linewidth=3.0)
    assert [int(np.argmax(drawn(line)[1])) for line in ax.lines] == [6, 7]
    assert drawn(ax.lines[1])[1][0] == -71.0
    assert [(line.get_color(), line.get_linewidth()) for line in ax.lines] == [("black", 3.0)] * 2


def test_trace_marks_the_threshold_without_a_legend():
    ax = plotting.trace(T, V, SPIKES, v_th=-55.0)
    assert drawn(ax.lines[1])[1].tolist() == [-55.0, -55.0]
    assert ax.texts[0].get_text() == "threshold" and ax.get_legend() is None


def test_two_traces_on_one_axes_get_two_colours_and_a_legend():
    ax = plotting.trace(T, V, label="one")
    assert ax.get_legend() is None
    assert plotting.trace(T, V + 1.0, label="two", ax=ax) is ax
    assert [to_hex(line.get_color()).upper() for line in ax.lines] == list(plotting.PALETTE[:2])
    assert legend_texts(ax) == ["one", "two"]


def test_raster_of_a_grid_puts_each_spike_at_its_time_and_neuron():
    spikes = np.zeros((10, 3))
    spikes[[2, 5, 9], [0, 2, 2]] = 1.0
    ax = plotting.raster(spikes, T)
    x, y = drawn(ax.lines[0])
    np.testing.assert_array_equal(x, T[[2, 5, 9]])
    np.testing.assert_array_equal(y, [0, 2, 2])
    assert ax.get_ylim() == (-0.5, 2.5) and ax.get_xlim() == (T[0], T[-1])
    x, y = drawn(plotting.raster(np.eye(10)[3], T).lines[0])
    assert x.tolist() == [T[3]] and y.tolist() == [0.0]


def test_raster_of_populations_is_one_above_the_other_by_name():
    ax = plotting.raster({"E": [[1.0], [2.0, 3.0]], "I": [[], [4.0], [5.0], []]})
    x, y = drawn(ax.lines[0])
    assert x.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0] and y.tolist() == [0, 1, 1, 3, 4]
    assert [(t.get_text(), y) for t, y in zip(ax.get_yticklabels(), ax.get_yticks(), strict=True)] == [
        ("E", 0.5),
        ("I", 3.5),
    ]


def test_activity_draws_each_population_where_it_belongs():
    trains = {"E": [[1.0], [2.0, 3.0]], "I": [[4.0]]}
    rates = {"E": ([1.0, 3.0], [500.0, 250.0]), "I": ([1.0, 3.0], [0.0, 500.0])}
    spectra = {"E": ([0.0, 2.0, 4.0], [9.0, 1.0, 2.0]), "I": ([0.0, 2.0, 4.0], [9.0, 3.0, 4.0])}
    spikes, cvs, curves, powers = plotting.activity(trains, rates, {"E": [0.5, 0.7], "I": []}, spectra).axes
    assert drawn(spikes.lines[0])[1].tolist() == [0, 1, 1, 2]
    assert [drawn(line)[1].tolist() for line in curves.lines] == [[500.0, 250.0], [0.0, 500.0]]
    # No power at 0 Hz, which a logarithm has no place for.
    assert [drawn(line)[1].tolist() for line in powers.lines] == [[1.0, 2.0], [3.0, 4.0]]
    assert sum(bar.get_height() for bar in cvs.patches) == 2
    assert [text.get_text() for text in cvs.get_legend().get_texts()] == ["E", "I"]


def test_raster_of_times_keeps_an_empty_row():
    ax = plotting.raster([[1.0, 4.0], [], np.array([2.5])], ylabel="trial")
    x, y = drawn(ax.lines[0])
    assert x.tolist() == [1.0, 4.0, 2.5] and y.tolist() == [0.0, 0.0, 2.0]
    assert ax.get_ylim() == (-0.5, 2.5) and ax.get_ylabel() == "trial"
    for silence in ([[], []], []):
        assert drawn(plotting.raster(silence).lines[0])[0].size == 0


def test_fi_curve_draws_dots_and_a_line_of_the_same_colour():
    ax = plotting.fi_curve([100.0, 200.0], [0.0, 60.0], [100.0, 150.0, 200.0], [0.0, 30.0, 61.0])
    dots, theory = ax.lines
    assert dots.get_linestyle() == "None" and theory.get_marker() == "None"
    assert dots.get_color() == theory.get_color()
    assert drawn(dots)[1].tolist() == [0.0, 60.0] and drawn(theory)[1].tolist() == [0.0, 30.0, 61.0]
    assert legend_texts(ax) == ["measured", "theory"] and ax.get_ylim()[0] == 0.0


def test_a_second_fi_curve_stays_inside_the_limits():
    ax = plotting.fi_curve([1.0, 2.0], [0.0, 3.0], label="slow")
    assert ax.get_legend() is None, "one alone needs none"
    plotting.fi_curve([1.0, 2.0], [0.0, 300.0], label="fast", ax=ax)
    assert ax.get_ylim()[0] == 0.0 and ax.get_ylim()[1] > 300.0


def test_fit_overlay_draws_both_voltages_and_their_difference():
    upper, lower = plotting.fit_overlay(T, V, V - 2.0, labels=("cell", "copy"))
    np.testing.assert_array_equal(drawn(upper.lines[0])[1], V)
    np.testing.assert_array_equal(drawn(upper.lines[1])[1], V - 2.0)
    np.testing.assert_allclose(drawn(lower.lines[0])[1], 2.0)
    assert upper.get_title(loc="right") == "RMSE 2.00 mV" and legend_texts(upper) == ["cell", "copy"]


def test_fit_overlay_draws_spikes_as_ticks_above_the_voltages():
    upper, _ = plotting.fit_overlay(T, V, V, SPIKES, np.roll(SPIKES, 2))
    recorded, predicted = upper.lines[2:]
    assert drawn(recorded)[0].tolist() == [T[6]] and drawn(predicted)[0].tolist() == [T[8]]
    assert drawn(recorded)[1][0] > 1.0 and drawn(predicted)[1][0] > drawn(recorded)[1][0]
    assert [line.get_color() for line in upper.lines[2:]] == [line.get_color() for line in upper.lines[:2]]


def test_fit_overlay_leaves_gaps_out_of_the_error():
    upper, _ = plotting.fit_overlay(T, np.where(np.arange(10) < 5, np.nan, V), V + 3.0)
    assert upper.get_title(loc="right") == "RMSE 3.00 mV"


def test_estimates_draw_values_intervals_and_what_is_not_known():
    nan = np.nan
    ax = plotting.estimates([1.0, 2.0, nan], [0.5, nan, nan], [1.5, nan, nan], ["a", "b", "c"], xlabel="tau_m (ms)")
    known, open_, lost = ax.lines
    assert [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in (known, open_)] == [
        ([1.0], [0]),
        ([2.0], [1]),
    ]
    assert open_.get_markerfacecolor() == "none" and lost.get_ydata().tolist() == [2]
    assert [segment.tolist() for segment in ax.collections[0].get_segments()] == [[[0.5, 0], [1.5, 0]]]
    assert ax.get_ylim() == (2.5, -0.5) and ax.get_xlabel() == "tau_m (ms)"


def every_figure(t, v, spikes):
    yield plotting.trace(t, v, spikes), "time (ms)", "voltage (mV)"
    yield plotting.raster(spikes, t), "time (ms)", "neuron"
    yield plotting.fi_curve(t, spikes, t, spikes), "current (pA)", "firing rate (Hz)"
    both = plotting.fit_overlay(t, v, v + 1.0, spikes, spikes)
    yield both[0], "", "voltage (mV)"
    yield both[1], "time (ms)", "residual (mV)"


@pytest.mark.parametrize("array", [np.array, jnp.asarray])
def test_every_axis_has_its_unit_and_every_line_is_finite(array):
    for ax, xlabel, ylabel in every_figure(*map(array, (T, V, SPIKES))):
        assert (ax.get_xlabel(), ax.get_ylabel()) == (xlabel, ylabel)
        assert all(np.isfinite(drawn(line)[1]).all() for line in ax.lines)
        assert not ax.spines["top"].get_visible() and not ax.spines["right"].get_visible()
        ax.figure.canvas.draw()


def test_arrays_and_the_settings_of_matplotlib_are_left_as_they_were():
    arrays = [x.copy() for x in (T, V, SPIKES)]
    for x in arrays:
        x.flags.writeable = False
    with plt.rc_context({"axes.spines.top": True, "lines.linewidth": 7.0}):
        before = dict(plt.rcParams)
        assert len(list(every_figure(*arrays))) == 5
        assert dict(plt.rcParams) == before


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plotting.trace(T[:5], np.zeros(6)), r"v has shape \(6,\): .* T = 5 as in t"),
        (lambda: plotting.trace(T[:5, None], np.zeros(5)), r"t has shape \(5, 1\): .* rank 1"),
        (lambda: plotting.trace([], []), r"t has shape \(0,\): .* not be empty"),
        (lambda: plotting.trace(T, np.zeros(10), np.zeros(9)), r"spikes has shape \(9,\) and v \(10,\)"),
        (lambda: plotting.raster(np.zeros((10, 2))), r"t = None: .* needs t \[T\]"),
        (lambda: plotting.raster(np.zeros((9, 2)), T), r"spikes_or_times has shape \(9, 2\): .* T = 10"),
        (lambda: plotting.raster([1.0, 2.0]), r"spikes_or_times\[0\] has shape \(\): .* rank 1"),
        (lambda: plotting.fi_curve([1.0, 2.0], [1.0]), r"rate has shape \(1,\) and current \(2,\)"),
        (lambda: plotting.fi_curve([1.0], [1.0], [1.0]), r"theory_rate has shape \(0,\) and theory_current \(1,\)"),
        (lambda: plotting.fi_curve([1.0], [1.0], [1.0, 2.0], [1.0]), r"theory_rate has shape \(1,\)"),
        (lambda: plotting.estimates([1.0], [1.0], [], xlabel="x"), r"high has shape \(0,\) and value \(1,\)"),
        (lambda: plotting.fit_overlay(T, T, T[:9]), r"predicted has shape \(9,\) and t \(10,\)"),
        (lambda: plotting.fit_overlay(T, T, T, T[:9]), r"spikes has shape \(9,\)"),
        (lambda: plotting.fit_overlay(T, T, T, None, T[:9]), r"predicted_spikes has shape \(9,\)"),
        (lambda: plotting.fit_overlay(T, T * np.nan, T), r"recorded and predicted .* no sample"),
    ],
)
def test_shapes_that_do_not_fit_are_named_in_one_line(draw, message):
    with pytest.raises(ValueError, match=message) as error:
        draw()
    assert "\n" not in str(error.value)
