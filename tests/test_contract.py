"""One suite over every cell and every pair of neuron and synapse: a later one is one more line in CASES.

Everything here follows from the contract alone (a pure step, scanned), so nothing here knows a model's equations. What
it costs is compiling: all cases have one length and its half, and what tests the scan more than the cell takes FEW.
"""

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxlif as jl
from jaxlif import networks
from jaxlif.interop.conventions import NorseLIFBox, from_norse, from_snntorch
from jaxlif.networks import (
    Arriving,
    Conv,
    Delayed,
    DelayParams,
    Dense,
    DenseParams,
    Feedback,
    FeedbackParams,
    Graph,
    Recurrent,
    RecurrentParams,
    Sequential,
    Sparse,
    SparseParams,
)
from jaxlif.neurons.cell import Scans
from jaxlif.neurons.hodgkin_huxley import HodgkinHuxley, HodgkinHuxleyParams
from jaxlif.neurons.wrappers import Noisy

N, T = 5, 60
RNG = np.random.default_rng(12)
SPREAD = np.linspace(0.9, 1.1, N)

NEURON = jl.LIFParams(
    tau_m=10.0 * SPREAD, r_m=0.1 / SPREAD, v_rest=-70.0 * SPREAD, v_th=-55.0 + SPREAD, v_reset=-80.0, t_ref=2.0 * SPREAD
)
CURRENT = RNG.normal(600.0, 600.0, (T, N))  # pA: a few spikes in 60 steps of 0.5 ms
LIF = jl.LIF(dt=0.5)


@dataclass(frozen=True)
class Case:
    """A cell with heterogeneous parameters and an input [T, ...] that makes it work.

    ``arrivals`` is the unit of a Drive's arrivals. ``units`` says whether the parameters carry all the units, so that
    rescaling them changes nothing; ``neurons`` whether the last axis of every array counts independent neurons;
    ``single`` is the error of single precision relative to the largest number, some 20 roundings of 1e-7.
    """

    cell: Any
    params: Any
    inputs: Any
    arrivals: str = ""
    units: bool = True
    neurons: bool = True
    single: float = 2e-6


def kicks(scale):
    """Return arrivals [T, K = 2, N] of random weights at random times."""
    return scale * RNG.exponential(1.0, (T, 2, N)) * (RNG.random((T, 2, N)) < 0.2)


def synaptic(synapse, params=None, cell=LIF, neuron=NEURON):
    return jl.Synaptic(cell, synapse), jl.SynapticParams(neuron=neuron, synapse=params)


TAU_SYN = np.array([[2.0], [5.0]]) * SPREAD
CURRENTS = jl.CurrentParams(tau_syn=TAU_SYN)
CONDUCTANCES = jl.ConductanceParams(tau_syn=TAU_SYN, e_rev=np.array([[0.0], [-80.0]]) * SPREAD)
FORCED = (RNG.random((T, N)) < 0.1).astype(float)
LAYERS = (Dense(), Recurrent(LIF), Dense(), jl.LeakyIntegrator(dt=0.5))
ADAPTIVE = jl.AdaptiveLIFParams(
    **vars(NEURON),
    eta=(80.0 * SPREAD, 20.0),
    tau_eta=(3.0, 20.0 * SPREAD),
    gamma=(4.0,),
    tau_gamma=(6.0 * SPREAD,),
    a=(2.0 * SPREAD,),
    tau_a=(15.0,),
    coupling=jl.VoltageCoupling(b=0.3, tau=4.0 * SPREAD, v_i=-65.0, k=3.0),
    mechanisms=(jl.MembraneCurrent(a=2.0 * SPREAD, tau=10.0, v_i=-68.0),),
    delta_v=1.5 * SPREAD,
)
# A wide upswing to a low peak: else v_th would move a spike by 1e-11 of it.
EXPONENTIAL = jl.AdExParams(
    **{**vars(NEURON), "v_th": -40.0 + SPREAD, "v_reset": -65.0 * SPREAD},
    v_t=-55.0 + SPREAD,
    delta_t=4.0 * SPREAD,
    a=5.0 * SPREAD,
    tau_w=20.0 * SPREAD,
    b=60.0,
)
NOISE = RNG.exponential(1.0, (T, N))
RESONANT = jl.ResonantLIFParams(**vars(NEURON), a=20.0 * SPREAD, tau_w=8.0 * SPREAD, b=90.0)
WEIGHTS = (
    DenseParams(weight=RNG.uniform(0.1, 0.4, (N, N)), bias=RNG.normal(0.0, 0.1, N)),
    RecurrentParams(neuron=NEURON, weight=RNG.normal(0.0, 300.0, (N, N))),
    DenseParams(weight=RNG.normal(0.0, 1.0, (N, N))),
    jl.LeakyParams(tau_m=10.0 * SPREAD, r_m=1.0, v_rest=-70.0),
)

# Each neuron reaches two others, the first only one: N marks the place without a synapse.
TARGET = ((np.arange(N)[:, None] + np.array([1, 3])) % N).astype(np.int32)
TARGET[0, 1] = N
SYNAPSES = SparseParams(weight=np.random.default_rng(13).normal(0.0, 300.0, (N, 2)), target=TARGET)

HH = jax.tree.map(lambda x: x * SPREAD[::-1], HodgkinHuxleyParams())

CASES = {
    "lif": Case(LIF, NEURON, CURRENT),
    "lif subtract": Case(jl.LIF(dt=0.5, reset="subtract"), NEURON, CURRENT),
    "lif attached": Case(jl.LIF(dt=0.5, detach_reset=False, surrogate=jl.Arctan()), NEURON, CURRENT),
    # Its output holds a time, which the test of units does not know: test_precise.py has its own.
    "precise": Case(jl.PreciseLIF(dt=0.5), NEURON, CURRENT, units=False, single=2e-5),
    "leaky": Case(jl.LeakyIntegrator(dt=0.5), jl.LeakyParams(tau_m=10.0 * SPREAD, r_m=1.0, v_rest=-70.0), CURRENT),
    "forced": Case(jl.TeacherForced(LIF), NEURON, jl.Forced(CURRENT, FORCED)),
    "jump": Case(*synaptic(jl.VoltageJump()), jl.Drive(kicks(4.0)[:, 0], CURRENT), "mV"),
    "current": Case(*synaptic(jl.ExponentialCurrent(), CURRENTS), jl.Drive(kicks(300.0), CURRENT), "pA"),
    "conductance": Case(*synaptic(jl.Conductance(), CONDUCTANCES), jl.Drive(kicks(5.0), CURRENT), "nS"),
    "precise current": Case(
        jl.PreciseSynaptic(jl.PreciseLIF(dt=0.5), jl.ExponentialCurrent()),
        jl.SynapticParams(neuron=NEURON, synapse=CURRENTS),
        jl.TimedDrive(
            np.stack([kicks(300.0), kicks(300.0)], axis=1), 0.5 * np.random.default_rng(14).random((T, 2, N)), CURRENT
        ),
        units=False,
        single=2e-5,
    ),
    "forced current": Case(
        jl.TeacherForced(jl.Synaptic(LIF, jl.ExponentialCurrent())),
        jl.SynapticParams(neuron=NEURON, synapse=CURRENTS),
        jl.Forced(jl.Drive(kicks(300.0), CURRENT), FORCED),
        "pA",
    ),
    "adaptive": Case(jl.AdaptiveLIF(dt=0.5), ADAPTIVE, CURRENT),
    "resonant": Case(jl.ResonantLIF(dt=0.5), RESONANT, CURRENT),
    "adex": Case(jl.AdEx(dt=0.5), EXPONENTIAL, CURRENT, units=False),
    "escape": Case(jl.EscapeNoise(jl.AdaptiveLIF(dt=0.5)), ADAPTIVE, Noisy(CURRENT, NOISE), units=False),
    "dense": Case(Dense(), WEIGHTS[0], CURRENT, units=False, neurons=False),
    "recurrent": Case(Recurrent(LIF), WEIGHTS[1], CURRENT, units=False, neurons=False),
    "sparse": Case(Sparse(N), SYNAPSES, CURRENT, units=False, neurons=False),
    "feedback": Case(
        Feedback(LIF, Sparse(N)), FeedbackParams(neuron=NEURON, path=SYNAPSES), CURRENT, units=False, neurons=False
    ),
    "feedback resonant": Case(
        Feedback(jl.ResonantLIF(dt=0.5), Dense()),
        FeedbackParams(neuron=RESONANT, path=DenseParams(weight=WEIGHTS[1].weight)),
        CURRENT,
        units=False,
        neurons=False,
    ),
    "hodgkin huxley": Case(
        # Its upstroke, some 300 mV/ms, magnifies what came before it.
        HodgkinHuxley(dt=0.5, substeps=25),
        HH,
        3.0 * CURRENT,
        units=False,
        single=2e-4,
    ),
    "graph": Case(
        Graph((Dense(), LIF, Dense()), ((-1, 0), (0, 1), (-1, 1), (1, 2)), ((2, 1), (1, 1))),
        (WEIGHTS[0], NEURON, DenseParams(weight=WEIGHTS[1].weight)),
        CURRENT,
        units=False,
        neurons=False,
    ),
    "network": Case(Sequential(LAYERS), WEIGHTS, CURRENT, units=False, neurons=False),
}


# Neurons with the synapses that they integrate themselves; test_compositions.py has every pair, and its equations.
for name, cell, neuron in (
    ("adaptive", jl.AdaptiveLIF(dt=0.5), ADAPTIVE),
    ("resonant", jl.ResonantLIF(dt=0.5), RESONANT),
    ("adex", jl.AdEx(dt=0.5), EXPONENTIAL),
):
    for kind in ("current", "conductance"):
        plain = CASES[kind]
        pair = synaptic(plain.cell.synapse, plain.params.synapse, cell, neuron)
        CASES[f"{name} {kind}"] = Case(*pair, plain.inputs, units=False)
KINDS = {"exc": jl.AlphaConductance(), "nmda": jl.NMDA(), "inh": jl.DoubleExponentialCurrent()}
OWN = {
    "exc": jl.ConductanceParams(tau_syn=1.0 * SPREAD),
    "nmda": jl.NMDAParams(tau_decay=50.0, e_rev=5.0 * SPREAD),
    "inh": jl.DoubleExponentialCurrentParams(tau_rise=2.0 * SPREAD, tau_decay=2.0),
}
CASES["kinds"] = Case(
    *synaptic(jl.Kinds(KINDS), OWN),
    jl.Drive(np.concatenate([kicks(5.0), -kicks(100.0)[:, :1]], axis=1), CURRENT),
    units=False,
)
PAIR = CASES["adaptive conductance"]
CASES["escape conductance"] = Case(jl.EscapeNoise(PAIR.cell), PAIR.params, Noisy(PAIR.inputs, NOISE), units=False)


def layer(cell, params, inputs=CURRENT):
    return Case(cell, params, inputs, units=False, neurons=False)


POPULATIONS = networks.build(
    jax.random.key(2),
    {
        "n": networks.Population(
            size=N, cell=CASES["current"].cell, params=CASES["current"].params, receptors=("exc", "inh")
        )
    },
    [
        networks.Projection(source="n", target="n", rule=networks.AllToAll(), receptor=receptor, **given)
        for receptor, given in {"exc": {"weight": 300.0, "delay": 1.5}, "inh": {"weight": -300.0}}.items()
    ],
    [
        networks.noise_drive("n", sd=100.0, tau=2.0),
        networks.poisson_drive("n", rate=400.0, weight=200.0, receptor="exc"),
    ],
)

LINE = DelayParams(delay=np.linspace(0.0, 5.0, N))
IMAGE = RNG.normal(0.0, 1.0, (T, 2, 4, 6))
KERNEL = RNG.normal(0.0, 1.0, (2, 3, 3, 3))
CASES |= {
    "arriving": layer(
        Arriving(CASES["current"].cell, kinds=2), CASES["current"].params, kicks(300.0).reshape(T, 2 * N)
    ),
    "conv 1d": layer(Conv(), DenseParams(weight=KERNEL[..., 0], bias=np.ones(3)), IMAGE[:, :, 0]),
    "conv 2d": layer(Conv(stride=2), DenseParams(weight=KERNEL), IMAGE),
    "flatten": layer(networks.Flatten(), None, IMAGE),
    "sum pool": layer(networks.SumPool(2), None, IMAGE),
    "delayed": layer(Delayed(0.5, 5.0), LINE),
    "delayed recurrent": layer(
        Feedback(LIF, Sequential((Delayed(0.5, 5.0), Dense()))),
        FeedbackParams(neuron=NEURON, path=(LINE, DenseParams(weight=WEIGHTS[1].weight))),
    ),
    # Under this key nothing is dropped: else an output would be still.
    "populations": layer(POPULATIONS.cell, POPULATIONS.params, {"n": CURRENT}),
    "dropout": layer(networks.Dropout(0.1), networks.DropoutParams(key=jax.random.key(1))),
    "normalise": layer(networks.Normalise(), None),
    "short term": layer(
        jl.TsodyksMarkram(dt=0.5),
        jl.TsodyksMarkramParams(use=0.4 * SPREAD, tau_rec=20.0 * SPREAD, tau_fac=30.0, tau_psc=3.0),
        FORCED,
    ),
    "plastic": layer(
        Feedback(LIF, jl.PlasticPath(jl.STDP(dt=0.5))),
        FeedbackParams(
            neuron=NEURON, path=jl.STDPParams(weight=200.0 + np.abs(WEIGHTS[1].weight), w_max=2e3, rate=0.1)
        ),
    ),
    "snntorch": layer(*from_snntorch(beta=0.9 * SPREAD, threshold=1.0), CURRENT / 600.0),
    "norse": layer(*from_norse("LIFCell", tau_mem_inv=100.0 * SPREAD), CURRENT / 600.0),
    "norse box": layer(NorseLIFBox(dt=0.5), NEURON),
}


def cases_where(flag):
    chosen = {name: case for name, case in CASES.items() if getattr(case, flag)}
    return pytest.mark.parametrize("case", chosen.values(), ids=chosen)


def cases_named(names):
    return pytest.mark.parametrize("case", [CASES[name] for name in names], ids=names)


every_cell = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
FEW = ("lif attached", "precise", "adaptive", "conductance", "feedback", "network")
few_cells = cases_named(FEW)


def at(tree, n):
    return jax.tree.map(lambda x: x[n], tree)


def floating(x):
    return jnp.issubdtype(jnp.result_type(x), jnp.floating)


def as_arrays(tree, dtype=float):
    """Return arrays, the floating ones in a precision: where a synapse ends stays an integer, a key a key."""
    return jax.tree.map(lambda x: jnp.asarray(x, dtype) if floating(x) else jnp.asarray(x), tree)


def assert_equal(a, b, **tolerance):
    """Compare two pytrees leaf by leaf: exactly, or within a tolerance that the caller argues for."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        if tolerance:
            np.testing.assert_allclose(x, y, **tolerance)
        else:
            np.testing.assert_array_equal(x, y)


def floats(tree):
    return [x for x in jax.tree.leaves(tree) if floating(x)]


def with_floats(tree, values):
    """Return the tree with its floating leaves, in order, replaced: those that a gradient exists for."""
    leaves, structure = jax.tree.flatten(tree)
    rest = iter(values)
    return jax.tree.unflatten(structure, [next(rest) if floating(x) else x for x in leaves])


def loss(outputs):
    """Weigh every number of the output, so that no gradient is missing by symmetry."""
    leaves = floats(outputs)
    return sum(jnp.mean(jnp.cos(jnp.arange(y.size, dtype=y.dtype).reshape(y.shape)) * y) for y in leaves)


# A vector and a scalar loop may round exp and multiply-add differently, by a unit in the last place of 70 mV
# (1.4e-14) and of its intermediate values at each step, of which the leak keeps about 20 alive. No spike flips: the
# comparisons check that too, since spikes are among the outputs.
ROUNDING = {"rtol": 0, "atol": 1e-11}


@every_cell
def test_the_case_does_something(case):
    """No neuron is silent, nothing stays where it was: else the tests below would compare zeros."""
    _, outputs = jl.simulate(case.cell, case.params, case.inputs)
    for y in floats(outputs):
        assert np.isfinite(y).all() and np.std(y, axis=0).min() > 0


@every_cell
def test_the_scan_equals_a_loop_of_steps(case):
    step = jax.jit(case.cell.step)
    state = case.cell.init_state(case.params, at(case.inputs, 0))
    expected = []
    for n in range(T):
        state, output = step(case.params, state, at(case.inputs, n))
        expected.append(output)
    final, outputs = jl.simulate(case.cell, case.params, case.inputs)
    assert_equal(outputs, jax.tree.map(lambda *y: np.stack(y), *expected), **ROUNDING)
    assert_equal(final, state, **ROUNDING)


@cases_named(sorted({*FEW, *(name for name, case in CASES.items() if isinstance(case.cell, Scans))}))
def test_two_chunks_equal_one_run_bitwise(case):
    """Of the cells that run the time axis themselves; of the others it is the scan's doing, as the few show."""
    whole = jl.simulate(case.cell, case.params, case.inputs)
    state = case.cell.init_state(case.params, at(as_arrays(case.inputs), 0))
    state, first = jl.simulate(case.cell, case.params, at(case.inputs, slice(T // 2)), state)
    state, second = jl.simulate(case.cell, case.params, at(case.inputs, slice(T // 2, None)), state)
    assert_equal(whole, (state, jax.tree.map(lambda a, b: np.concatenate([a, b]), first, second)))


@few_cells
def test_vmap_over_a_batch_equals_one_by_one(case):
    batch = jax.tree.map(lambda x: np.stack([x, x[::-1], 0.5 * x]), case.inputs)
    together = jax.vmap(lambda x: jl.simulate(case.cell, case.params, x)[1])(batch)
    for b in range(3):
        _, alone = jl.simulate(case.cell, case.params, at(batch, b))
        assert_equal(at(together, b), alone, **ROUNDING)


@cases_named([*FEW, "hodgkin huxley", "sparse", "delayed", "conv 2d", "escape conductance", "resonant current"])
def test_simulation_and_gradient_compile_for_other_devices(case):
    """Export lowers for devices that are not here: nothing in the hot path is of the CPU alone."""

    def run(params, inputs):
        def value(values):
            return loss(jl.simulate(case.cell, with_floats(params, values), inputs)[1])

        return jax.value_and_grad(value)(floats(params))

    platforms = ("cpu", "cuda", "tpu")
    exported = export.export(jax.jit(run), platforms=platforms)(as_arrays(case.params), as_arrays(case.inputs))
    assert exported.platforms == platforms


class Counted:
    """A cell that counts how often it is traced, by value the same each time."""

    def __init__(self, cell):
        self.cell, self.traces, self.step = cell, 0, cell.step
        if isinstance(cell, Scans):
            self.scan = cell.scan

    def init_state(self, params, x):
        self.traces += 1
        return self.cell.init_state(params, x)


@few_cells
def test_new_parameter_values_do_not_trace_again(case):
    cell = Counted(case.cell)
    params = as_arrays(case.params)
    for _ in range(3):
        jl.simulate(cell, params, case.inputs)
        params = with_floats(params, [1.01 * x for x in floats(params)])
    assert cell.traces == 1


def test_a_new_shape_does_trace_again():
    """The counter of the test above does count."""
    cell = Counted(LIF)
    for steps in (3, 4, 3):
        jl.simulate(cell, NEURON, CURRENT[:steps])
    assert cell.traces == 2


@every_cell
def test_equal_cells_share_one_program(case):
    """Cells are values: a copy is equal, hashes alike, cannot be changed, and holds no array."""
    twin = copy.deepcopy(case.cell)
    assert twin == case.cell and hash(twin) == hash(case.cell) and len({twin, case.cell}) == 1
    for field in dataclasses.fields(twin):
        assert not isinstance(getattr(twin, field.name), np.ndarray | jax.Array)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(twin, field.name, None)


@every_cell
def test_states_and_outputs_are_named(case):
    """Named tuples; a network has a tuple of its layers' states, and what passes spikes on puts out an array."""
    state, output = jl.simulate(case.cell, case.params, case.inputs)
    for value in state if type(state) is tuple else (state,):
        assert hasattr(value, "_fields") or value == ()
    passes_on = not hasattr(case.cell, "dt") or isinstance(case.cell, Delayed | jl.TsodyksMarkram)
    assert hasattr(output, "_fields") or (passes_on and isinstance(output, jax.Array))


@cases_where("neurons")
def test_permuting_neurons_permutes_outputs_exactly(case):
    order = np.array([3, 0, 4, 2, 1])

    def permuted(tree):
        return jax.tree.map(lambda x: x[..., order] if np.ndim(x) else x, tree)

    straight = jl.simulate(case.cell, case.params, case.inputs)
    assert_equal(jl.simulate(case.cell, permuted(case.params), permuted(case.inputs)), permuted(straight))


# -------------------------------------------------------------------------------------------------------------- dtypes


def shapes(cell, params, inputs):
    """Trace without compiling: enough to know every dtype."""
    return jax.eval_shape(lambda p, x: jl.simulate(cell, p, x), params, inputs)


def assert_floats_are(dtype, tree):
    assert floats(tree) and {str(x.dtype) for x in floats(tree)} == {dtype}


@every_cell
def test_arrays_keep_their_precision(dtype, case):
    assert_floats_are(dtype, shapes(case.cell, as_arrays(case.params, dtype), as_arrays(case.inputs, dtype)))


@every_cell
def test_half_precision_never_reaches_the_state(case):
    """In half precision a voltage stops where a step moves it by less than its last digit."""
    state, outputs = shapes(case.cell, as_arrays(case.params, "bfloat16"), as_arrays(case.inputs, "float16"))
    if not isinstance(case.cell, networks.Flatten):  # which moves numbers and makes none
        assert all(jnp.finfo(x.dtype).bits >= 32 for x in floats((state, outputs)))


def plain_numbers(tree):
    """Return parameters as Python floats, one neuron's."""
    return jax.tree.map(lambda x: float(np.ravel(x)[0]), tree)


@cases_where("neurons")
def test_python_numbers_take_the_inputs_precision(case):
    """In double-precision mode too: a float32 recording is not silently promoted, nor a float64 one cut."""
    for dtype in ("float32", "float64"):
        assert_floats_are(dtype, shapes(case.cell, plain_numbers(case.params), as_arrays(case.inputs, dtype)))


@every_cell
def test_float32_follows_float64(case):
    """No spike flips, and the voltages are off by the roundings that the leak has not forgotten."""
    double = jl.simulate(case.cell, case.params, case.inputs)[1]
    single = jl.simulate(case.cell, as_arrays(case.params, "float32"), as_arrays(case.inputs, "float32"))[1]
    for x, y in zip(floats(single), floats(double), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=case.single * max(100.0, float(np.abs(y).max())))


# ----------------------------------------------------------------------------------------------------------- gradients


@cases_named(["lif attached", "current", "network"])
def test_checkpointing_changes_nothing(case):
    """60 steps in segments of 7, with 4 left over: of one neuron, of inputs that are several arrays, of layers."""

    def value(values, checkpoint):
        result = jl.simulate(case.cell, with_floats(case.params, values), case.inputs, checkpoint=checkpoint)
        return loss(result[1]), result

    gradient = jax.jit(jax.value_and_grad(value, has_aux=True), static_argnums=1)
    (_, plain), expected = gradient(floats(case.params), None)
    (_, segmented), actual = gradient(floats(case.params), 7)
    assert_equal(segmented, plain, **ROUNDING)
    largest = max(float(np.abs(g).max()) for g in expected)
    assert largest > 0
    # Sums over 60 steps in another order; with the reset attached the terms grow before they cancel.
    assert_equal(actual, expected, rtol=1e-9, atol=1e-12 * largest)


@pytest.mark.parametrize("options", [{"unroll": 4}, {"checkpoint": 1}, {"checkpoint": 1000}])
def test_other_ways_to_run_the_loop_change_nothing(options):
    plain = jl.simulate(LIF, NEURON, CURRENT)
    assert_equal(jl.simulate(LIF, NEURON, CURRENT, **options), plain, **ROUNDING)


LONG = 100_000  # steps
NOISY = {
    "lif subtract": (jl.LIF(reset="subtract"), jl.LIFParams()),
    "resonant": (jl.ResonantLIF(), jl.ResonantLIFParams(a=1.0, b=20.0)),
    "forced": (jl.TeacherForced(jl.LIF()), jl.LIFParams()),
    "current": (jl.Synaptic(jl.LIF(), jl.ExponentialCurrent()), jl.SynapticParams(synapse=jl.CurrentParams())),
    "conductance": (jl.Synaptic(jl.LIF(), jl.Conductance()), jl.SynapticParams(synapse=jl.ConductanceParams())),
}


def long_input(cell):
    """Return 10 s of noise for one neuron, in the form that the cell takes."""
    rng = np.random.default_rng(0)
    noise = rng.normal(150.0, 500.0, LONG)
    if isinstance(cell, jl.TeacherForced):
        return jl.Forced(noise, (rng.random(LONG) < 0.002).astype(float))
    if isinstance(cell, jl.Synaptic):
        arrivals = rng.exponential(1.0, (LONG, 1)) * (rng.random((LONG, 1)) < 0.01)
        return jl.Drive(arrivals, noise)
    return noise


@pytest.mark.parametrize("name", NOISY)
def test_gradients_stay_finite_over_100_000_noisy_steps(name):
    """With the defaults, in single precision, where an exploding factor overflows first."""
    with jax.enable_x64(False):
        cell, params = NOISY[name]
        inputs = as_arrays(long_input(cell))

        def value(params):
            outputs = jl.simulate(cell, params, inputs)[1]
            return loss(outputs), outputs

        (_, outputs), gradient = jax.jit(jax.value_and_grad(value, has_aux=True))(params)
        assert outputs.spikes.sum() > 100
        gradient = {jax.tree_util.keystr(k): g for k, g in jax.tree_util.tree_leaves_with_path(gradient)}
        assert all(np.isfinite(g) for g in gradient.values()), gradient
        # t_ref acts through a whole number of steps.
        assert all(g != 0 for k, g in gradient.items() if "t_ref" not in k), gradient


# --------------------------------------------------------------------------------------------------------------- units

MS, MV, PA = 4.0, 8.0, 1024.0  # powers of two: rescaling by them rounds nothing
UNIT = {"tau_m": MS, "t_ref": MS, "tau_syn": MS, "v_rest": MV, "v_th": MV, "v_reset": MV, "e_rev": MV, "r_m": MV / PA}
UNIT |= {"eta": PA, "tau_eta": MS, "gamma": MV, "tau_gamma": MS, "a": PA / MV, "tau_a": MS}
UNIT |= {"tau_w": MS, "b": PA, "coupling.b": 1.0, "tau": MS, "v_i": MV, "k": MV, "delta_v": MV, "lambda_0": 1.0 / MS}
ARRIVALS = {"": 1.0, "mV": MV, "pA": PA, "nS": PA / MV}


def with_dt(cell, factor):
    """Return the cell with its own dt, or that of the neuron that it wraps, scaled."""
    if "dt" in {field.name for field in dataclasses.fields(cell)}:
        return dataclasses.replace(cell, dt=cell.dt * factor)
    return dataclasses.replace(cell, neuron=with_dt(cell.neuron, factor))


def rescaled_input(x, arrivals):
    if isinstance(x, jl.Forced):
        return x._replace(input=rescaled_input(x.input, arrivals))
    if isinstance(x, jl.Drive):
        return jl.Drive(x.arrivals * ARRIVALS[arrivals], x.input * PA)
    return x * PA


@cases_where("units")
def test_other_units_change_nothing(case):
    """Every time, voltage and current in another unit: the same spikes, and the same voltages in the new unit."""

    def scale(path, leaf):
        # The terms of an adaptation are a tuple under their name.
        names = [key.name for key in path if hasattr(key, "name")]
        return leaf * UNIT.get(".".join(names[-2:]), UNIT[names[-1]])

    params = jax.tree_util.tree_map_with_path(scale, case.params)
    _, new = jl.simulate(with_dt(case.cell, MS), params, rescaled_input(case.inputs, case.arrivals))
    _, old = jl.simulate(case.cell, case.params, case.inputs)
    factors = type(old)(*[1.0 if name == "spikes" else MV for name in old._fields])
    assert_equal(new, jax.tree.map(lambda y, f: f * y, old, factors))
