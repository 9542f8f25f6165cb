import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlif as jl
from jaxlif.fitting import fit as fit_module
from jaxlif.fitting.bounds import REAL
from jaxlif.fitting.fit import fit, multistart

# A quadratic with a minimum of 3 at x = A^-1 b, by hand (2, -1).
A = np.array([[2.0, 0.5], [0.5, 1.0]])
MINIMUM = np.array([2.0, -1.0])


def quadratic(p):
    d = p["x"] - jnp.asarray(MINIMUM, p["x"].dtype)
    return 3.0 + 0.5 * d @ (jnp.asarray(A, d.dtype) @ d)


def start():
    return {"x": jnp.array([5.0, 4.0]), "n": 7, "fixed": np.float32(0.1)}


def plain_loop(loss, x, optimizer, num_steps, batches=None):
    """Run Optax as its documentation does; return losses before the updates, and the iterates."""

    @jax.jit
    def update(x, state, *data):
        value, grad = jax.value_and_grad(loss)(x, *data)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(grad, state, x)
            return optax.apply_updates(x, updates), state, value

    state, losses, iterates = optimizer.init(x), [], [x]
    for k in range(num_steps):
        x, state, value = update(x, state, *(() if batches is None else batches[k]))
        losses.append(float(value))
        iterates.append(x)
    return np.array(losses), iterates


# ------------------------------------------------------------------------------------------------- it finds the minimum


@pytest.mark.parametrize("optimizer, num_steps", [(optax.adam(0.1), 600), (optax.lbfgs(), 15)], ids=["adam", "lbfgs"])
def test_a_quadratic_is_minimised(dtype, optimizer, num_steps):
    result = fit(quadratic, start(), {"x": REAL}, optimizer=optimizer, num_steps=num_steps)
    assert result.params["x"].dtype == dtype and result.losses.dtype == dtype
    # The best point is known by its loss, and near a minimum of 3 that knows x to the root of the rounding: 5e-8, 1e-3.
    np.testing.assert_allclose(result.params["x"], MINIMUM, rtol=0, atol={"float64": 5e-8, "float32": 1e-3}[dtype])
    np.testing.assert_allclose(result.loss, 3.0, rtol={"float64": 1e-14, "float32": 3e-7}[dtype])
    assert result.completed and len(result.losses) <= num_steps  # L-BFGS meets a gradient of exactly 0
    assert result.losses[0] == quadratic(start())


@pytest.mark.parametrize("optimizer", [optax.adam(0.2), optax.lbfgs()], ids=["adam", "lbfgs"])
def test_minima_inside_every_kind_of_interval(optimizer):
    """Closed forms: x = ln 3 for e^x - 3x, mean of the data, and a half line whose minimum is x = -4."""

    def loss(p, data):
        return jnp.exp(p["a"]) - 3.0 * p["a"] + jnp.mean((data - p["b"]) ** 2) + (p["c"] + 4.0) ** 2

    params = {"a": 0.5, "b": jnp.asarray(8.0), "c": -1.0}
    bounds = {"a": (0.0, 2.0), "b": (1.0, math.inf), "c": (-math.inf, 0.0)}
    data = jnp.array([2.0, 3.0, 7.0])
    result = fit(loss, params, bounds, optimizer=optimizer, num_steps=400, data=data, tolerance=1e-10)
    found = [float(result.params[name]) for name in "abc"]
    np.testing.assert_allclose(found, [math.log(3.0), 4.0, -4.0], rtol=1e-7)


def test_a_minimum_outside_its_bounds_ends_near_the_bound_and_inside():
    result = fit(lambda p: (p["x"] - 9.0) ** 2, {"x": 1.0}, {"x": (0.0, 5.0)}, optimizer=optax.adam(0.3), num_steps=200)
    assert 4.99 < result.params["x"] < 5.0


# ---------------------------------------------------------------------------------------------- it is Optax, bit by bit


@pytest.mark.parametrize(("optimizer", "num_steps"), [(optax.sgd(0.01, momentum=0.5), 7), (optax.adam(0.01), 120)])
def test_it_takes_the_steps_of_a_plain_optax_loop(optimizer, num_steps):
    """7 steps run in chunks of 1, 120 in chunks of 2 and one of 1: neither moves a bit."""
    losses, iterates = plain_loop(quadratic, {"x": start()["x"]}, optimizer, num_steps)
    result = fit(quadratic, start(), {"x": REAL}, optimizer=optimizer, num_steps=num_steps)
    np.testing.assert_array_equal(result.losses, losses)
    assert result.step == num_steps  # it falls to the last, which one evaluation more has judged
    np.testing.assert_array_equal(result.params["x"], iterates[-1]["x"])
    assert result.loss == float(quadratic(iterates[-1]))


def test_in_bounds_it_takes_the_steps_of_a_plain_loop_in_free_coordinates():
    def loss(p):
        return (p.tau_m - 20.0) ** 2 + (p.r_m - 0.3) ** 2

    def by_hand(z):  # logit to (2, 60), logarithm
        return (2.0 + 58.0 / (1.0 + jnp.exp(-z["tau_m"])) - 20.0) ** 2 + (jnp.exp(z["r_m"]) - 0.3) ** 2

    z = {"tau_m": jnp.log(8.0 / 50.0), "r_m": jnp.log(0.1)}
    losses, iterates = plain_loop(by_hand, z, optax.adam(0.05), 30)
    bounds = {"tau_m": (2.0, 60.0), "r_m": (0.0, math.inf)}
    result = fit(loss, jl.LIFParams(), bounds, optimizer=optax.adam(0.05), num_steps=30)
    np.testing.assert_allclose(result.losses, losses, rtol=1e-12)  # exp and sigmoid round differently
    best = iterates[result.step]
    tau_m, r_m = 2.0 + 58.0 / (1.0 + np.exp(-best["tau_m"])), np.exp(best["r_m"])
    assert result.step > 10
    np.testing.assert_allclose([result.params.tau_m, result.params.r_m], [tau_m, r_m], rtol=1e-12)


@pytest.mark.parametrize("keyed", [False, True])
def test_batches_cycle_in_order_and_each_step_has_its_key(keyed):
    """Seven steps over three batches see 0 1 2 0 1 2 0, and the last point is kept: their losses do not compare."""

    def loss(p, batch, key=None):
        drawn = 0.0 if key is None else jax.random.normal(key) * p["x"]
        return jnp.mean((p["x"] * batch["u"] - batch["v"]) ** 2) + drawn

    rng, key = np.random.default_rng(1), jax.random.key(3) if keyed else None
    batches = {"u": rng.normal(size=(3, 4)), "v": rng.normal(size=(3, 4))}
    each = [(jax.tree.map(lambda b, k=k: b[k % 3], batches),) for k in range(8)]
    each = [(*x, jax.random.fold_in(key, k)) for k, x in enumerate(each)] if keyed else each
    losses, iterates = plain_loop(loss, {"x": jnp.asarray(1.5)}, optax.sgd(0.1), 7, each)
    result = fit(loss, {"x": 1.5}, {"x": REAL}, optimizer=optax.sgd(0.1), num_steps=7, batches=batches, key=key)
    np.testing.assert_array_equal(result.losses, losses)
    np.testing.assert_array_equal(result.params["x"], iterates[-1]["x"])
    assert len(set(losses[:3])) == 3 and losses.argmin() != 6
    assert result.step == 7 and result.loss == pytest.approx(float(loss(iterates[-1], *each[7])), rel=1e-14)


def test_a_loss_that_draws_has_data_or_none_before_its_key():
    """A quadratic about a point that is drawn: with sgd(0.5) each step lands on it."""
    key = jax.random.key(0)

    def loss(p, batch, key):
        return (p["x"] - jax.random.normal(key) - (0.0 if batch is None else batch)) ** 2

    for data in (None, 3.0):
        result = fit(loss, {"x": 1.0}, {"x": REAL}, optimizer=optax.sgd(0.5), num_steps=5, data=data, key=key)
        last = jax.random.normal(jax.random.fold_in(key, 4)) + (data or 0.0)
        assert float(result.params["x"]) == pytest.approx(float(last), rel=1e-14) and result.completed


def test_the_best_point_is_kept_where_the_last_is_worse():
    """Steps that overshoot: x -> -1.1 x grows, so that the start stays the best point."""
    result = fit(lambda p: p["x"] ** 2, {"x": 3.0}, {"x": REAL}, optimizer=optax.sgd(1.05), num_steps=6)
    np.testing.assert_allclose(result.losses, 9.0 * 1.1 ** (2 * np.arange(6)), rtol=1e-12)
    assert (result.step, float(result.params["x"]), result.loss) == (0, 3.0, 9.0)


def test_the_last_update_is_judged_too():
    result = fit(lambda p: p["x"] ** 2, {"x": 3.0}, {"x": REAL}, optimizer=optax.sgd(0.5), num_steps=1)
    assert (result.losses.tolist(), result.step, result.loss) == ([9.0], 1, 0.0)
    assert result.params["x"] == 0.0


def test_it_stops_where_the_gradient_is_small():
    """sgd(0.25) halves x, and the gradient 2 x of 8 falls to 1/8 after six updates."""
    result = fit(
        lambda p: p["x"] ** 2, {"x": 4.0}, {"x": REAL}, optimizer=optax.sgd(0.25), num_steps=500, tolerance=0.125
    )
    assert result.completed and "converged" in result.message
    assert result.params["x"] == 4.0 / 2**6 and result.step == 6
    np.testing.assert_array_equal(result.losses, (4.0 / 2.0 ** np.arange(7)) ** 2)


# -------------------------------------------------------------------------------------------------------- what is fixed


def recording_optimizer(inner):
    """Wrap an optimiser and note what it is given."""
    seen = []

    def init(params):
        seen.append(params)
        return inner.init(params)

    def update(grad, state, params=None):
        seen.append(params)
        return inner.update(grad, state, params)

    return optax.GradientTransformation(init, update), seen


def test_fixed_leaves_never_meet_the_optimiser():
    """Weight decay moves whatever the optimiser holds: fixed leaves come back as the same objects."""
    optimizer, seen = recording_optimizer(optax.adamw(0.1, weight_decay=1.0))
    params = {**start(), "y": jnp.asarray(1.0), "lif": jl.LIFParams(v_th=np.float64(-50.1))}

    def loss(p):  # of the fixed leaves too: they have gradients, and are fixed all the same
        return quadratic(p) + p["y"] ** 2 * p["fixed"].astype(float) + (p["lif"].v_th - p["lif"].v_rest) ** 2

    result = fit(loss, params, {"x": REAL, "lif.v_rest": (-90.0, -55.0)}, optimizer=optimizer, num_steps=5)
    assert all(set(p) == {"x", "lif.v_rest"} for p in seen) and len(seen) >= 2
    for name in ("n", "fixed", "y"):
        assert result.params[name] is params[name]
    assert result.params["lif"].v_th is params["lif"].v_th and result.params["lif"].tau_m == 10.0
    assert (result.params["x"] != params["x"]).all() and result.params["lif"].v_rest != -70.0


def test_weight_decay_acts_on_free_leaves():
    """The counterpart of the test above: with no gradient at all the free leaf decays, by 1 - 0.1 a step."""
    optimizer = optax.chain(optax.add_decayed_weights(1.0), optax.sgd(0.1))
    options = {"optimizer": optimizer, "num_steps": 4, "batches": np.zeros((1, 1))}  # of which the last point is kept
    with pytest.warns(UserWarning, match="4 steps; the loss does not depend on x .its gradient was 0 at every step"):
        result = fit(lambda p, _: 0.0 * p["x"], {"x": 2.0, "y": 3.0}, {"x": REAL}, **options)
    np.testing.assert_allclose(result.params["x"], 2.0 * 0.9**4, rtol=1e-14)
    assert result.params["y"] == 3.0


# ---------------------------------------------------------------------------------------------------------- compilation


def compilations(caplog, name=""):
    return [m for m in caplog.messages if m.startswith("Compiling") and name in m]


@pytest.mark.parametrize("optimizer", [optax.adam(0.1), optax.lbfgs()], ids=["adam", "lbfgs"])
def test_a_fit_compiles_once(caplog, optimizer):
    """One loop for all chunks, and none at all for the same loss, bounds and optimiser with other numbers."""

    def loss(p, data):
        return jnp.mean((p.tau_m * data - p.v_rest) ** 2)

    def run(tau_m):
        data = np.full(4, tau_m)
        params, bounds = jl.LIFParams(tau_m=tau_m), {"tau_m": (2.0, 60.0)}  # equal bounds, made anew
        return fit(loss, params, bounds, optimizer=optimizer, num_steps=60, data=data)

    with jax.log_compiles(), caplog.at_level("DEBUG", logger="jax"):
        run(10.0)
        assert len(compilations(caplog, "_advance")) == 1
        caplog.clear()
        run(11.0)
        assert not compilations(caplog)


# ----------------------------------------------------------------------------------------------------------- divergence


def root(p):
    """sqrt(x) + y^2 under sgd(1) from x = 1: x goes 1, 0.5, 0.5 - 0.7071 < 0, where the loss is not a number."""
    return jnp.sqrt(p["x"]) + p["y"] ** 2


def test_divergence_names_step_and_parameter_and_keeps_the_best():
    with pytest.warns(UserWarning) as warning:
        result = fit(root, {"x": 1.0, "y": 0.0}, {"*": REAL}, optimizer=optax.sgd(1.0), num_steps=100)
    expected = "diverged at step 2: loss = nan, gradient not finite, at x = -0.207107; the point after 1 steps is kept"
    assert result.message == expected
    assert [str(w.message) for w in warning] == ["the fit ended: " + expected]
    assert warning[0].filename == __file__  # it points at the caller
    assert not result.completed
    assert (float(result.params["x"]), result.step) == (0.5, 1)
    np.testing.assert_allclose(result.losses, [1.0, math.sqrt(0.5)], rtol=1e-15)
    assert result.loss == result.losses[1]


def test_divergence_over_batches_keeps_the_last_finite_point():
    start, options = {"x": 1.0, "y": 0.0}, {"optimizer": optax.sgd(1.0), "num_steps": 9, "batches": np.zeros(2)}
    with pytest.warns(UserWarning, match="diverged at step 2"):
        result = fit(lambda p, b: root(p) + 0.0 * b, start, {"*": REAL}, **options)
    assert float(result.params["x"]) == 0.5 and result.step == 1 and not result.completed


def test_an_infinite_gradient_of_a_finite_loss_is_divergence():
    """|x|^(1/2) reaches exactly 0 from 0.25 with sgd(0.25): the loss is 0 there, its slope is not finite."""
    with pytest.warns(UserWarning, match="diverged at step 1: loss = 0, gradient not finite, at x = 0;"):
        result = fit(lambda p: jnp.sqrt(p["x"]), {"x": 0.25}, {"x": REAL}, optimizer=optax.sgd(0.25), num_steps=9)
    assert float(result.params["x"]) == 0.25 and result.loss == 0.5


def test_a_fit_that_cannot_move_says_so():
    """Four parameters: two move, one is not in the loss, of one the loss has no slope where it is."""
    start, free = {"a": 1.0, "b": 1.0, "c": 2.0, "d": 3.0}, {"*": REAL}

    def loss(p):
        return p["a"] ** 2 + p["b"] ** 4 + jnp.maximum(p["c"], 9.0)

    with pytest.warns(
        UserWarning, match=r"the fit ended: 50 steps; the loss does not depend on c, d \(its gradient was 0"
    ):
        partly = fit(loss, start, free, optimizer=optax.sgd(0.1), num_steps=50)
    assert (partly.params["c"], partly.params["d"]) == (2.0, 3.0) and abs(partly.params["a"]) < 1e-4
    message = "nothing moved: the loss does not depend on c, d at the start (its gradient there is 0)"
    for optimizer in (optax.adam(0.1), jl.lbfgs()):
        with pytest.warns(UserWarning) as warning:
            stuck = fit(loss, start, {"c": REAL, "d": REAL}, optimizer=optimizer, num_steps=50)
        assert stuck.message == message and [str(w.message) for w in warning] == [f"the fit ended: {message}"]
        assert warning[0].filename == __file__ and stuck.step == 0 and stuck.losses.tolist() == [11.0]


@pytest.mark.parametrize(
    ("optimizer", "loss", "x", "words"),
    [
        (jl.lbfgs(), jnp.sqrt, -1.0, "loss = nan, gradient not finite, at x = -1"),
        (optax.sgd(0.1), jnp.sqrt, -1.0, "loss = nan, gradient not finite, at x = -1"),
        (optax.sgd(0.1), lambda x: x + jnp.inf, 1.0, "loss = inf, gradient finite, at x = 1"),
        (optax.sgd(0.1), lambda x: jnp.sum(jnp.sqrt(x)), jnp.array([4.0, -3.0]), r"at x = \[-3 \.\. 4\]"),
    ],
)
def test_a_start_that_is_not_finite_is_refused(optimizer, loss, x, words):
    with pytest.raises(ValueError, match=f"the fit cannot start: at the start .*{words}"):
        fit(lambda p: loss(p["x"]), {"x": x}, {"x": REAL}, optimizer=optimizer, num_steps=9)


# -------------------------------------------------------------------------------------------------- interrupt, progress


@pytest.mark.parametrize("chunks", [0, 3])
def test_an_interrupt_keeps_the_best_so_far(monkeypatch, chunks):
    """Ctrl-C while a chunk of two steps runs: the chunks before it count."""
    whole = fit(quadratic, start(), {"x": REAL}, optimizer=optax.adam(0.1), num_steps=100)
    advance, calls = fit_module._advance, []

    def interrupted(*args):
        if len(calls) == chunks:
            raise KeyboardInterrupt
        calls.append(args)
        return advance(*args)

    monkeypatch.setattr(fit_module, "_advance", interrupted)
    result = fit(quadratic, start(), {"x": REAL}, optimizer=optax.adam(0.1), num_steps=100)
    assert result.message == f"interrupted after {2 * chunks} steps" and not result.completed
    np.testing.assert_array_equal(result.losses, whole.losses[: 2 * chunks])
    _, iterates = plain_loop(quadratic, {"x": start()["x"]}, optax.adam(0.1), 2 * chunks)
    best = int(np.argmin(result.losses)) if chunks else 0
    np.testing.assert_array_equal(result.params["x"], iterates[best]["x"])


def test_the_progress_bar_shows_every_step_and_changes_nothing(capsys):
    quiet = fit(quadratic, start(), {"x": REAL}, optimizer=optax.adam(0.1), num_steps=100)
    assert capsys.readouterr().err == ""
    shown = fit(quadratic, start(), {"x": REAL}, optimizer=optax.adam(0.1), num_steps=100, progress=True)
    assert "101/101" in capsys.readouterr().err
    np.testing.assert_array_equal(shown.losses, quiet.losses)


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "options, message",
    [
        ({"data": 1.0, "batches": np.zeros(2)}, "data and batches are both given"),
        ({"batches": (np.zeros(2), np.zeros(3))}, r"batches of shapes \[\(2,\), \(3,\)\]: all must be arrays"),
        ({"bounds": {"y": REAL}}, "bounds name 'y', which is no parameter; the parameters are x"),
        ({"bounds": {"x": (2.0, 3.0)}}, "x = 1: the start must lie inside"),
        ({"bounds": {}}, "^bounds are empty, so that nothing is free: name at least one parameter, REAL for no"),
        (
            {"loss": lambda p: jnp.stack([p["x"], p["x"]])},
            r"the loss returned float64 of shape \(2,\): it must be a",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused(options, message):
    call: dict[str, Any] = {"loss": lambda p, *data: p["x"] ** 2, "bounds": {"x": REAL}, "num_steps": 3}
    call |= {"optimizer": optax.sgd(0.1), "params": {"x": 1.0}} | options
    with pytest.raises(ValueError, match=message):
        fit(**call)


# ----------------------------------------------------------------------------------------------------------- multistart


def two_wells(p):
    """(x^2 - 1)^2 + x/4 has a local minimum near x = 0.97 and the global one near -1.03."""
    return (p["x"] ** 2 - 1.0) ** 2 + 0.25 * p["x"]


# The roots of 4 x^3 - 4 x + 1/4.
LOCAL, _, GLOBAL = sorted(np.roots([4.0, 0.0, -4.0, 0.25]).real, reverse=True)


def test_several_starts_find_the_global_minimum_where_one_does_not(dtype):
    optimizer, num_steps = {"float64": (optax.lbfgs(), 40), "float32": (optax.adam(0.05), 400)}[dtype]
    options = {"optimizer": optimizer, "num_steps": num_steps}
    alone = fit(two_wells, {"x": 0.9}, {"x": REAL}, **options)
    several = multistart(two_wells, {"x": 0.9}, {"x": REAL}, key=jax.random.key(3), num_starts=6, **options)
    atol = {"float64": 1e-6, "float32": 1e-3}[dtype]
    np.testing.assert_allclose(alone.params["x"], LOCAL, atol=atol)
    np.testing.assert_allclose(several.params["x"], GLOBAL, atol=atol)
    assert alone.starts.tolist() == [alone.loss] and several.loss == several.starts.min() < alone.loss - 0.4
    # The first start is the one given: it ends where it ends alone, but for the rounding of a batched program.
    rtol = {"float64": 1e-12, "float32": 1e-5}[dtype]
    np.testing.assert_allclose(several.starts[0], alone.loss, rtol=rtol)
    wells = [float(two_wells({"x": x})) for x in (LOCAL, GLOBAL)]
    gaps = np.abs(several.starts[:, None] - wells).min(axis=1)
    assert several.starts.shape == (6,) and (gaps < 10 * rtol).all(), "each of them ends in one of the wells"


def test_starts_that_fail_are_dropped():
    """ln^2 of a negative number is none: with starts on both sides of 0, the finite ones count."""
    options = {"key": jax.random.key(0), "num_starts": 8, "optimizer": optax.adam(0.02), "num_steps": 300}
    result = multistart(lambda p: jnp.log(p["x"]) ** 2, {"x": 0.5}, {"x": REAL}, **options)
    failed = result.starts == np.inf
    assert 0 < failed.sum() < 8 and not failed[0] and np.isfinite(result.starts[~failed]).all()
    np.testing.assert_allclose(result.params["x"], 1.0, atol=1e-3)


def test_where_every_start_fails_that_is_said():
    call = {"key": jax.random.key(0), "num_starts": 3, "optimizer": optax.sgd(0.1), "num_steps": 4}
    with pytest.raises(ValueError, match="the fit cannot start: at the start loss = nan"):
        multistart(lambda p: p["x"] * jnp.nan, {"x": 1.0}, {"x": REAL}, **call)
    for bad in ({"num_starts": 0}, {"key": 0}):
        with pytest.raises(ValueError, match=f"^{next(iter(bad))} = "):
            multistart(quadratic, start(), {"x": REAL}, **call | bad)


def test_starts_are_drawn_inside_their_bounds():
    """Steps of size 0 leave the starts where they are, and the loss is the parameter: the first is the start itself."""
    options = {"key": jax.random.key(1), "num_starts": 200, "optimizer": optax.sgd(0.0), "num_steps": 1}
    result = multistart(lambda p: p.tau_m, jl.LIFParams(tau_m=20.0), {"tau_m": (2.0, 60.0)}, **options)
    assert result.starts[0] == pytest.approx(20.0, rel=1e-14)
    assert ((result.starts > 2.0) & (result.starts < 60.0)).all() and result.params.tau_m == result.starts.min()
    # In free coordinates they are normal around the start with a spread of 2; 5 standard errors.
    z = np.log((result.starts[1:] - 2.0) / (60.0 - result.starts[1:]))
    assert z.mean() == pytest.approx(np.log(18.0 / 40.0), abs=5 * 2.0 / math.sqrt(199))
    assert z.std() == pytest.approx(2.0, abs=5 * 2.0 / math.sqrt(2 * 199))


# ------------------------------------------------------------------------------------------------------------- a neuron


def test_a_forced_voltage_gives_its_parameters_back():
    """End to end: a recorded voltage and its spikes, a teacher-forced neuron, and every parameter that it can show."""
    truth = jl.LIFParams(tau_m=14.0, r_m=0.12, v_rest=-68.0, v_reset=-62.0, t_ref=2.0)
    current = jnp.asarray(np.random.default_rng(0).normal(160.0, 200.0, 1500))
    cell = jl.TeacherForced(jl.LIF(dt=0.2))
    _, recorded = jl.simulate(jl.LIF(dt=0.2), truth, current)
    assert recorded.spikes.sum() >= 5

    def loss(p, data):
        return jnp.mean((jl.simulate(cell, p, data[0])[1].v - data[1]) ** 2)

    guess = jl.LIFParams(tau_m=9.0, r_m=0.2, v_rest=-72.0, v_reset=-66.0, t_ref=2.0)
    bounds = {"tau_m": (1.0, 100.0), "r_m": (0.01, 1.0), "v_rest": REAL, "v_reset": (-90.0, -56.0)}
    data = (jl.Forced(current, recorded.spikes), recorded.v)
    result = fit(loss, guess, bounds, optimizer=optax.lbfgs(), num_steps=100, data=data, tolerance=1e-10)
    for name in bounds:
        np.testing.assert_allclose(getattr(result.params, name), getattr(truth, name), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("loss", 3), ("loss", []), ("optimizer", None), ("optimizer", optax.adam), ("bounds", [("x", (0, 1))]),
        ("bounds", None), ("num_steps", 0), ("num_steps", 2.5), ("num_steps", True), ("num_steps", "3"),
        ("tolerance", "0"), ("tolerance", np.nan), ("data", "a"), ("data", np.array(["a"])), ("batches", 3.0),
        ("batches", np.zeros((0, 2))), ("key", 0),
    ],
)  # fmt: skip
def test_what_is_no_argument_is_one_line_that_names_it(name, bad):
    call = {"loss": lambda p, *data: p["x"] ** 2, "params": {"x": jnp.asarray(0.5)}, "bounds": {"x": (0.0, 1.0)}}
    with pytest.raises(ValueError, match=name) as caught:
        jl.fit(**call | {"optimizer": optax.sgd(0.1), "num_steps": 2} | {name: bad})
    assert "\n" not in str(caught.value)


def test_a_start_that_breaks_a_rule_is_refused_though_it_is_not_free():
    """The loss sees tracers, which no check can read: a fit around a negative time constant would look like another."""
    start = jl.LIFParams(tau_m=-5.0)
    with pytest.raises(ValueError, match="^tau_m = -5 ms: tau_m must be greater than 0 ms$"):
        jl.fit(lambda p: p.r_m**2, start, {"r_m": (0.01, 1.0)}, optimizer=optax.sgd(0.1), num_steps=1)
