import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

import jaxlif as jl
from jaxlif import plotting
from jaxlif.gradients import Comparison
from jaxlif.networks import FlightRecord, Sequential

T = np.arange(1, 11) * 0.1


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.fixture
def voltage():
    v = np.linspace(-70.0, -56.0, 10)
    v[6] = -65.0
    spikes = np.zeros(10)
    spikes[6] = 1.0
    return v, spikes


def drawn(line):
    return np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)


def legend_texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_spike_is_drawn_at_20_mv_for_one_step_only(voltage):
    v, spikes = voltage
    x, y = drawn(plotting.trace(T, v, spikes).lines[0])
    np.testing.assert_array_equal(x, T)
    np.testing.assert_array_equal(np.flatnonzero(y == 20.0), [6])
    np.testing.assert_array_equal(np.delete(y, 6), np.delete(v, 6))


def test_a_trace_without_spikes_is_the_voltage(voltage):
    v, _ = voltage
    np.testing.assert_array_equal(drawn(plotting.trace(T, v).lines[0])[1], v)


def test_the_spike_height_can_be_chosen(voltage):
    y = drawn(plotting.trace(T, *voltage, spike_height=35.0).lines[0])[1]
    assert y.max() == 35.0


def test_trace_draws_each_neuron_with_its_own_spikes(voltage):
    v, spikes = voltage
    two = np.stack([v, v - 1.0], axis=1)
    ax = plotting.trace(T, two, np.stack([spikes, np.roll(spikes, 1)], axis=1))
    assert [int(np.argmax(drawn(line)[1])) for line in ax.lines] == [6, 7]
    assert drawn(ax.lines[1])[1][0] == -71.0


def test_trace_marks_the_threshold_without_a_legend(voltage):
    ax = plotting.trace(T, *voltage, v_th=-55.0)
    assert drawn(ax.lines[1])[1].tolist() == [-55.0, -55.0]
    assert ax.texts[0].get_text() == "threshold" and ax.get_legend() is None


def test_two_traces_on_one_axes_get_two_colours_and_a_legend(voltage):
    ax = plotting.trace(T, voltage[0], label="one")
    assert ax.get_legend() is None
    assert plotting.trace(T, voltage[0] + 1.0, label="two", ax=ax) is ax
    assert [to_hex(line.get_color()).upper() for line in ax.lines] == list(plotting.PALETTE[:2])
    assert legend_texts(ax) == ["one", "two"]


def test_trace_passes_line_properties_on(voltage):
    line = plotting.trace(T, voltage[0], color="black", linewidth=3.0).lines[0]
    assert line.get_color() == "black" and line.get_linewidth() == 3.0


def test_raster_of_a_grid_puts_each_spike_at_its_time_and_neuron():
    spikes = np.zeros((10, 3))
    spikes[[2, 5, 9], [0, 2, 2]] = 1.0
    ax = plotting.raster(spikes, T)
    x, y = drawn(ax.lines[0])
    np.testing.assert_array_equal(x, T[[2, 5, 9]])
    np.testing.assert_array_equal(y, [0, 2, 2])
    assert ax.get_ylim() == (-0.5, 2.5) and ax.get_xlim() == (T[0], T[-1])


def test_raster_of_one_train_on_the_grid():
    x, y = drawn(plotting.raster(np.eye(10)[3], T).lines[0])
    assert x.tolist() == [T[3]] and y.tolist() == [0.0]


def test_raster_of_times_keeps_an_empty_row():
    ax = plotting.raster([[1.0, 4.0], [], np.array([2.5])], ylabel="trial")
    x, y = drawn(ax.lines[0])
    assert x.tolist() == [1.0, 4.0, 2.5] and y.tolist() == [0.0, 0.0, 2.0]
    assert ax.get_ylim() == (-0.5, 2.5) and ax.get_ylabel() == "trial"


@pytest.mark.parametrize("trains", [[[], []], []])
def test_raster_of_silence_is_empty(trains):
    x, _ = drawn(plotting.raster(trains).lines[0])
    assert x.size == 0


def test_fi_curve_draws_dots_and_a_line_of_the_same_colour():
    ax = plotting.fi_curve([100.0, 200.0], [0.0, 60.0], [100.0, 150.0, 200.0], [0.0, 30.0, 61.0])
    dots, theory = ax.lines
    assert dots.get_linestyle() == "None" and theory.get_marker() == "None"
    assert dots.get_color() == theory.get_color()
    assert drawn(dots)[1].tolist() == [0.0, 60.0] and drawn(theory)[1].tolist() == [0.0, 30.0, 61.0]
    assert legend_texts(ax) == ["measured", "theory"] and ax.get_ylim()[0] == 0.0


def test_fi_curve_alone_needs_no_legend():
    assert plotting.fi_curve([1.0, 2.0], [0.0, 3.0]).get_legend() is None


def test_a_second_fi_curve_stays_inside_the_limits():
    ax = plotting.fi_curve([1.0, 2.0], [0.0, 3.0], label="slow")
    plotting.fi_curve([1.0, 2.0], [0.0, 300.0], label="fast", ax=ax)
    assert ax.get_ylim()[0] == 0.0 and ax.get_ylim()[1] > 300.0


def test_fit_overlay_draws_both_voltages_and_their_difference(voltage):
    v, _ = voltage
    upper, lower = plotting.fit_overlay(T, v, v - 2.0)
    np.testing.assert_array_equal(drawn(upper.lines[0])[1], v)
    np.testing.assert_array_equal(drawn(upper.lines[1])[1], v - 2.0)
    np.testing.assert_allclose(drawn(lower.lines[0])[1], 2.0)
    assert upper.get_title(loc="right") == "RMSE 2.00 mV"
    assert legend_texts(upper) == ["recorded", "model"]


def test_fit_overlay_draws_spikes_as_ticks_above_the_voltages(voltage):
    v, spikes = voltage
    upper, _ = plotting.fit_overlay(T, v, v, spikes, np.roll(spikes, 2))
    recorded, predicted = upper.lines[2:]
    assert drawn(recorded)[0].tolist() == [T[6]] and drawn(predicted)[0].tolist() == [T[8]]
    assert drawn(recorded)[1][0] > 1.0 and drawn(predicted)[1][0] > drawn(recorded)[1][0]
    assert [line.get_color() for line in upper.lines[2:]] == [line.get_color() for line in upper.lines[:2]]


def test_fit_overlay_leaves_gaps_out_of_the_error(voltage):
    v, _ = voltage
    gap = np.where(np.arange(10) < 5, np.nan, v)
    upper, _ = plotting.fit_overlay(T, gap, v + 3.0)
    assert upper.get_title(loc="right") == "RMSE 3.00 mV"


def test_fit_overlay_names_the_voltages(voltage):
    upper, _ = plotting.fit_overlay(T, voltage[0], voltage[0], labels=("cell", "copy"))
    assert legend_texts(upper) == ["cell", "copy"]


def test_fit_overlay_uses_the_axes_that_it_is_given(voltage):
    axes = plt.subplots(2)[1]
    assert plotting.fit_overlay(T, voltage[0], voltage[0], axes=axes) == tuple(axes)


def test_loss_history_is_logarithmic_where_positive_and_marks_its_best():
    ax = plotting.loss_history([8.0, 2.0, np.nan, 0.5, 1.0])
    curve, best = ax.lines
    assert ax.get_yscale() == "log" and drawn(curve)[0].tolist() == [0, 1, 2, 3, 4]
    assert drawn(best)[0].tolist() == [3.0] and drawn(best)[1].tolist() == [0.5]
    assert legend_texts(ax) == ["best: 0.5 at step 3"]


def test_loss_history_of_a_log_likelihood_is_linear():
    ax = plotting.loss_history([3.0, -2.0])
    assert ax.get_yscale() == "linear" and drawn(ax.lines[1])[1].tolist() == [-2.0]


def every_figure(arrays):
    t, v, spikes, losses = arrays
    both = plotting.fit_overlay(t, v, v + 1.0, spikes, spikes)
    yield plotting.trace(t, v, spikes), "time (ms)", "voltage (mV)"
    yield plotting.raster(spikes, t), "time (ms)", "neuron"
    yield plotting.fi_curve(t, spikes, t, spikes), "current (pA)", "firing rate (Hz)"
    yield both[0], "", "voltage (mV)"
    yield both[1], "time (ms)", "residual (mV)"
    yield plotting.loss_history(losses), "step", "loss"


@pytest.mark.parametrize("array", [np.array, jnp.asarray])
def test_every_axis_has_its_unit_and_every_line_is_finite(voltage, array):
    for ax, xlabel, ylabel in every_figure([array(x) for x in (T, *voltage, [2.0, 1.0])]):
        assert (ax.get_xlabel(), ax.get_ylabel()) == (xlabel, ylabel)
        assert all(np.isfinite(drawn(line)[1]).all() for line in ax.lines)
        assert not ax.spines["top"].get_visible() and not ax.spines["right"].get_visible()
        ax.figure.canvas.draw()


def test_the_arrays_are_left_as_they_were(voltage):
    arrays = [np.array(x) for x in (T, *voltage, [2.0, 1.0])]
    before = [x.copy() for x in arrays]
    for x in arrays:
        x.flags.writeable = False
    assert len(list(every_figure(arrays))) == 6
    for x, y in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(x, y)


def test_the_settings_of_matplotlib_are_left_as_they_were(voltage):
    with plt.rc_context({"axes.spines.top": True, "lines.linewidth": 7.0}):
        before = dict(plt.rcParams)
        plotting.trace(T, *voltage)
        plotting.fit_overlay(T, voltage[0], voltage[0])
        assert dict(plt.rcParams) == before


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plotting.trace(T[:5], np.zeros(6)), r"v has shape \(6,\): .* T = 5 as in t"),
        (lambda: plotting.trace(T[:5, None], np.zeros(5)), r"t has shape \(5, 1\): .* one-dimensional"),
        (lambda: plotting.trace([], []), r"t has shape \(0,\): .* not empty"),
        (lambda: plotting.trace(T, np.zeros(10), np.zeros(9)), r"spikes has shape \(9,\): .* v, \(10,\)"),
        (lambda: plotting.raster(np.zeros((10, 2))), r"t = None: .* needs t \[T\]"),
        (lambda: plotting.raster(np.zeros((9, 2)), T), r"spikes_or_times has shape \(9, 2\): .* T = 10"),
        (lambda: plotting.raster([1.0, 2.0]), r"spikes_or_times\[0\] has shape \(\): .* one-dimensional"),
        (lambda: plotting.fi_curve([1.0, 2.0], [1.0]), r"rate has shape \(1,\): .* current, \(2,\)"),
        (lambda: plotting.fi_curve([1.0], [1.0], [1.0]), r"theory_current and theory_rate .* together"),
        (lambda: plotting.fi_curve([1.0], [1.0], [1.0, 2.0], [1.0]), r"theory_rate has shape \(1,\)"),
        (lambda: plotting.fit_overlay(T, T, T[:9]), r"predicted has shape \(9,\): .* t, \(10,\)"),
        (lambda: plotting.fit_overlay(T, T, T, T[:9]), r"spikes has shape \(9,\)"),
        (lambda: plotting.fit_overlay(T, T, T, None, T[:9]), r"predicted_spikes has shape \(9,\)"),
        (lambda: plotting.fit_overlay(T, T, T, axes=plt.subplots(3)[1]), r"axes has 3 Axes: .* two"),
        (lambda: plotting.fit_overlay(T, T * np.nan, T), r"recorded and predicted .* no sample"),
        (lambda: plotting.loss_history(np.ones((2, 2))), r"losses has shape \(2, 2\)"),
        (lambda: plotting.loss_history([np.nan]), r"losses .* finite"),
    ],
)
def test_shapes_that_do_not_fit_are_named_in_one_line(draw, message):
    with pytest.raises(ValueError, match=message) as error:
        draw()
    assert "\n" not in str(error.value)


def test_layers_are_drawn_as_cosines_with_the_ratio_of_the_norms():
    one, two = Comparison(0.5, 2.0), Comparison(-0.25, 0.1)
    ax = plotting.layer_cosines({"cell": {"all": one, "0.weight": one, "layer 0": one, "layer 2": two}})
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["layer 0", "layer 2"]
    assert [bar.get_height() for bar in ax.patches] == [0.5, -0.25]
    assert {text.get_text() for text in ax.texts} == {"×2", "×0.1"}
    with pytest.raises(ValueError, match="no layer"):
        plotting.layer_cosines({"cell": {"all": one}})


def test_slopes_over_time_are_steps_and_the_smoothed_one_has_its_error():
    ax = plotting.gradient_over_time(
        [0.0, 2.0, 6.0], {"cell": [1.0, -1.0], "precise": [2.0, 0.0]}, [0.5, 0.0], [0.1, 0.2]
    )
    steps = [patch.get_data() for patch in ax.patches]
    assert [data.values.tolist() for data in steps] == [[1.0, -1.0], [2.0, 0.0]]
    assert steps[0].edges.tolist() == [0.0, 2.0, 6.0]
    bars = ax.containers[0]
    np.testing.assert_array_equal(bars[0].get_xdata(), [1.0, 4.0])
    ends = [segment[:, 1].tolist() for segment in bars[2][0].get_segments()]
    np.testing.assert_allclose(ends, [[0.4, 0.6], [-0.2, 0.2]], rtol=1e-12)
    assert set(legend_texts(ax)) == {"cell", "precise", "smoothed"}
    with pytest.raises(ValueError, match="smoothed has shape"):
        plotting.gradient_over_time([0.0, 2.0, 6.0], {"cell": [1.0, -1.0]}, [0.5], [0.1, 0.2])


@pytest.mark.parametrize(("bins", "panels"), [(0, 1), (4, 2)])
@pytest.mark.parametrize("network", [False, True], ids=["neuron", "network"])
def test_an_audit_is_drawn_in_panels(network, bins, panels):
    params = jl.LIFParams(tau_m=jnp.array([10.0, 20.0]))
    cell, x = jl.LIF(dt=0.5), jnp.full((40, 2), 100.0)
    if network:
        cell, params = Sequential((cell, jl.LeakyIntegrator(dt=0.5))), (params, jl.LeakyParams())
    audit = jl.audit_gradient(
        lambda out: jnp.mean(getattr(out, "output", out).v),
        cell,
        params,
        x,
        key=jax.random.key(0),
        samples=4,
        bins=bins,
    )
    axes = plotting.audit_panels(audit, dt=0.5)
    assert len(axes) == panels and axes[0].figure.get_suptitle() == audit.verdict
    assert axes[0].get_ylabel().startswith("cosine" if network else "d loss")
    if not network:
        assert axes[0].patches[0].get_height() == pytest.approx(float(audit.cell[audit.names[0]].sum()))
    if bins:
        assert axes[1].patches[0].get_data().edges.tolist() == [0.0, 5.0, 10.0, 15.0, 20.0]
    with pytest.raises(ValueError, match="dt = 0 ms"):
        plotting.audit_panels(audit, dt=0.0)


def test_flight_panels_draw_rates_shares_and_the_gradient_over_time():
    record = FlightRecord(
        layers=("layer 1 (LIF)", "layer 3 (Recurrent)"), dt=0.5, duration=1.5,
        rates=(np.array([4.0, 1.0]), np.array([2.0, 0.0, 8.0, 9.0])), mean_rate=np.array([2.5, 4.75]),
        silent=np.array([0.0, 0.75]), saturated=np.array([0.0, 0.125]), occupancy=np.array([0.2, np.nan]),
        spectral_radius=np.array([np.nan, 2.0]), loop_gain=np.array([np.nan, 1.01]), broken=np.array([-1, -1]),
        gradient_norm=np.array([[1.0, 2.0, 3.0], [0.0, 4.0, np.inf]]),
    )  # fmt: skip
    rates, shares, norm = plotting.flight_panels(record)
    assert rates.lines[0].get_xdata().tolist() == [1.0, 4.0] and rates.lines[0].get_ydata().tolist() == [0.5, 1.0]
    assert [text.get_text() for text in rates.get_legend().get_texts()] == ["layer 1 (LIF)", "layer 3 (Recurrent)"]
    assert [[bar.get_height() for bar in bars] for bars in shares.containers] == [[0.0, 0.75], [0.0, 0.125], [0.2, 0.0]]
    assert [text.get_text() for text in shares.get_xticklabels()] == [
        "1 (LIF)",
        "3 (Recurrent)\nradius 2, loop gain 1.01",
    ]
    np.testing.assert_array_equal(norm.lines[1].get_ydata(), [np.nan, 4.0, np.nan])
    title = rates.figure.get_suptitle()
    assert title == "layer 3 (Recurrent): 75% of the neurons are silent (and 2 more alarms)"
