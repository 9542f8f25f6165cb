"""Every pair of wrapper, neuron and synapse: right against a fine integration in NumPy, or refused when it is made."""

from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlif as jl
from jaxlif.interop.conventions import NorseLIFBox, SnnTorchLeaky
from jaxlif.networks import (
    Arriving,
    Dense,
    DenseParams,
    Feedback,
    FeedbackParams,
    Recurrent,
    RecurrentParams,
    Sequential,
)
from jaxlif.neurons.wrappers import Noisy

DT, T, N, SUBSTEPS = 0.5, 120, 3, 50
RNG = np.random.default_rng(7)
CURRENT = RNG.normal(400.0, 500.0, (T, N))  # pA
PLAIN = {
    "tau_m": np.array([8.0, 10.0, 14.0]),
    "r_m": 0.1,
    "v_rest": -70.0,
    "v_th": np.array([-57.0, -55.0, -60.0]),
    "v_reset": -65.0,
    "t_ref": np.array([0.0, 2.0, 1.2]),
}
ADAPTIVE = {"eta": (60.0,), "tau_eta": (30.0,), "gamma": (3.0,), "tau_gamma": (20.0,)}
ADAPTIVE |= {"a": (8.0,), "tau_a": (25.0,), "delta_v": 1.5, "lambda_0": 0.8}
COUPLING = {"b": 0.4, "tau": 4.0, "v_i": -62.0, "k": 2.0}
RESONANT = {"a": np.array([-4.0, 30.0, 60.0]), "tau_w": np.array([10.0, 20.0, 30.0]), "b": 40.0}
TAU_SYN, E_REV = np.array([2.0, 10.0]), np.array([0.0, -80.0])


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class NoisyParams(jl.LIFParams):
    """A plain neuron with what escape noise needs."""

    delta_v: float = 1.5
    lambda_0: float = 0.8


NEURONS = {
    "plain": (jl.LIF(dt=DT), jl.LIFParams(**PLAIN)),
    "adaptive": (
        jl.AdaptiveLIF(dt=DT),
        jl.AdaptiveLIFParams(**PLAIN, **ADAPTIVE, coupling=jl.VoltageCoupling(**COUPLING)),
    ),
    "resonant": (jl.ResonantLIF(dt=DT), jl.ResonantLIFParams(**PLAIN, **RESONANT)),
}
RISE, DECAY = np.array([1.0, 5.0]), np.array([4.0, 5.0])  # the second is the alpha function
MIXED = {
    "ampa": (jl.Conductance(), jl.ConductanceParams(tau_syn=2.0, e_rev=0.0)),
    "nmda": (jl.NMDA(), jl.NMDAParams(tau_rise=2.0, tau_decay=40.0, mg=0.8)),
    "gaba": (
        jl.DoubleExponentialConductance(),
        jl.DoubleExponentialConductanceParams(tau_rise=np.array([0.5, 1.0, 2.0]), tau_decay=6.0, e_rev=-78.0),
    ),
    "other": (jl.AlphaCurrent(), jl.CurrentParams(tau_syn=3.0)),
}
SYNAPSES = {
    "jump": (jl.VoltageJump(), None, 6.0),
    "current": (jl.ExponentialCurrent(), jl.CurrentParams(tau_syn=TAU_SYN), 250.0),
    "conductance": (jl.Conductance(), jl.ConductanceParams(tau_syn=TAU_SYN, e_rev=E_REV), 6.0),
    "rising current": (
        jl.DoubleExponentialCurrent(),
        jl.DoubleExponentialCurrentParams(tau_rise=RISE, tau_decay=DECAY),
        120.0,
    ),
    "mixed": (jl.Kinds({n: kind for n, (kind, _) in MIXED.items()}), {n: own for n, (_, own) in MIXED.items()}, 6.0),
}
# The same for the plain loop: rows of rise, decay, reversal potential and magnesium, nan where there is none.
ROWS = {
    "jump": np.full((1, 4), np.nan),
    "current": np.array([[np.nan, tau, np.nan, np.nan] for tau in TAU_SYN]),
    "conductance": np.array([[np.nan, tau, e, np.nan] for tau, e in zip(TAU_SYN, E_REV, strict=True)]),
    "rising current": np.array([[rise, decay, np.nan, np.nan] for rise, decay in zip(RISE, DECAY, strict=True)]),
    "mixed": np.array([[np.nan, 2, 0, np.nan], [2, 40, 0, 0.8], [0, 6, -78, np.nan], [3, 3, np.nan, np.nan]]),
}
PAIRS = [(neuron, synapse) for neuron in NEURONS for synapse in SYNAPSES]
every_pair = pytest.mark.parametrize("neuron, synapse", PAIRS, ids=["-".join(pair) for pair in PAIRS])


def arrivals(synapse):
    """Return weights [T, N] or [T, K, N] that arrive in every fifth step."""
    shape = (T, N) if synapse == "jump" else (T, len(ROWS[synapse]), N)
    rng = np.random.default_rng(8)
    weights = SYNAPSES[synapse][2] * rng.exponential(1.0, shape) * (rng.random(shape) < 0.2)
    return weights * np.array([1.0, 1.0, 1.0, 40.0])[:, None] if synapse == "mixed" else weights


def composed(neuron, synapse):
    cell, params = NEURONS[neuron]
    kind, own, _ = SYNAPSES[synapse]
    return jl.Synaptic(cell, kind), jl.SynapticParams(neuron=params, synapse=own)


def at(tree, n):
    return jax.tree.map(lambda x: x[n], tree)


def drive(synapse, scale=1.0):
    return jl.Drive(scale * arrivals(synapse), CURRENT)


# ----------------------------------------------------------------------------------------------------------- the oracle


class Mechanisms(NamedTuple):
    """What the plain loop holds beside the voltage: by neuron, whatever it has of these."""

    w: np.ndarray
    eta: np.ndarray
    gamma: np.ndarray
    u: np.ndarray
    x: np.ndarray


def softplus(v):
    return COUPLING["k"] * np.log1p(np.exp((v - COUPLING["v_i"]) / COUPLING["k"]))


def opened(synapse, t, value, drive):
    """Return the currents or conductances t ms after they were ``value`` and ``drive``, and the drive: closed forms."""
    rise, decay = ROWS[synapse][:, 0, None] * np.ones(N), ROWS[synapse][:, 1, None]
    if synapse == "mixed":
        rise[2] = 0.5, 1.0, 2.0
    rises, equal = ~np.isnan(rise), rise == decay
    a, b = 1.0 / np.where(rises & ~equal, rise, 1.0), 1.0 / decay
    fed = np.where(equal, t * np.exp(-t * b), (np.exp(-t * b) - np.exp(-t * a)) / np.where(a == b, 1.0, a - b))
    left = np.where(rises, drive * np.exp(-t / np.where(rises, rise, 1.0)), 0.0)
    return value * np.exp(-t * b) + np.where(rises, drive * fed, 0.0), left, rises, rise, decay, equal


def arrived(synapse, value, drive, weights):
    """Return value and drive after the weights: those that rise are to peak at them."""
    _, _, rises, rise, decay, equal = opened(synapse, 0.0, value, drive)
    peak = np.where(equal, decay, rise * decay * np.log(decay / rise) / np.where(equal, 1.0, decay - rise))
    height = opened(synapse, peak, np.zeros_like(rise), np.ones_like(rise))[0]
    return value + np.where(rises, 0.0, weights), drive + np.where(rises, weights / np.where(rises, height, 1.0), 0.0)


def injected(synapse, now, v):
    """Return the currents [N], pA, of what is open."""
    e_rev, mg = ROWS[synapse][:, 2, None], ROWS[synapse][:, 3, None]
    block = np.where(np.isnan(mg), 1.0, 1.0 / (1.0 + mg / 3.57 * np.exp(-0.062 * v)))
    return np.sum(np.where(np.isnan(e_rev), now, now * block * (e_rev - v)), axis=0)


def runge_kutta(neuron, synapse):
    """Return v and spikes [T, N]: the equations of the docstrings by fine Runge-Kutta, the order of operations by hand.

    An adaptive neuron holds its adaptation over a step, as NEST does; a resonant one does not.
    """
    p, left = PLAIN, np.zeros(N)
    kicks, jumps = arrivals(synapse), synapse == "jump"
    v, s = np.full(N, -70.0), (np.zeros((len(ROWS[synapse]), N)),) * 2
    m = Mechanisms(*(np.zeros(N) for _ in range(4)), softplus(v))
    trace = []
    for n in range(T):
        held = CURRENT[n] - (m.eta + m.u if neuron == "adaptive" else 0.0)

        def slopes(t, y, held=held, s=s):
            current = 0.0 if jumps else injected(synapse, opened(synapse, t, *s)[0], y[0])
            w_dot = (RESONANT["a"] * (y[0] - p["v_rest"]) - y[1]) / RESONANT["tau_w"]
            return np.array([(p["v_rest"] - y[0] + p["r_m"] * (held + current - y[1])) / p["tau_m"], w_dot])

        resonates = np.array([[1.0], [float(neuron == "resonant")]])
        y, h = np.array([v, m.w]), DT / SUBSTEPS
        waiting = left > 0
        for i in range(SUBSTEPS):
            stages, at = [], y
            for fraction in (0.5, 0.5, 1.0, None):
                k = slopes(h * (i + (0.0 if not stages else 0.5 if len(stages) < 3 else 1.0)), at) * resonates
                stages.append(np.array([np.where(waiting, 0.0, k[0]), k[1]]))
                at = y + h * (fraction or 0.0) * stages[-1]
            y = y + h / 6.0 * (stages[0] + 2.0 * stages[1] + 2.0 * stages[2] + stages[3])
        if neuron == "adaptive":  # by what held over the step, the voltage of its start
            m = m._replace(u=m.u + (8.0 * (v + 70.0) - m.u) * -np.expm1(-DT / 25.0))
            m = m._replace(x=m.x + (softplus(v) - m.x) * -np.expm1(-DT / COUPLING["tau"]))
        v = y[0] + (kicks[n] * ~waiting if jumps else 0.0)
        s = s if jumps else arrived(synapse, *opened(synapse, DT, *s)[:2], kicks[n])
        theta = p["v_th"] + (m.gamma + COUPLING["b"] * m.x if neuron == "adaptive" else 0.0)
        spikes = (v >= theta) & ~waiting
        v = np.where(spikes, p["v_reset"], v)
        left = np.where(spikes, np.ceil(p["t_ref"] / DT - 1e-9), np.maximum(left - 1, 0))
        m = m._replace(w=y[1] + (RESONANT["b"] * spikes if neuron == "resonant" else 0.0))
        eta, gamma = m.eta * np.exp(-DT / 30.0) + 60.0 * spikes, m.gamma * np.exp(-DT / 20.0) + 3.0 * spikes
        m = m._replace(eta=eta, gamma=gamma)
        trace.append((v, spikes))
    return tuple(map(np.array, zip(*trace, strict=True)))


@cache
def stepping(neuron, synapse):
    """Return a compiled step of the pair alone, forced at its own spikes, and noisy without noise, from one state.

    EscapeNoise spikes where v >= theta + delta_v log(E / (lambda_0 dt)): for E = lambda_0 dt the neuron itself does.
    """
    cell, params = composed(neuron, synapse)
    noisy = NoisyParams(**vars(params.neuron)) if neuron == "plain" else params.neuron
    escapes, noise = hasattr(noisy, "delta_v"), jnp.full(N, 0.8 * DT)

    @jax.jit
    def step(state, x):
        free = cell.step(params, state, x)
        forced = jl.TeacherForced(cell).step(params, state, jl.Forced(x, free[1].spikes))
        if not escapes:
            return free, forced, free
        return free, forced, jl.EscapeNoise(cell).step(replace(params, neuron=noisy), state, Noisy(x, noise))

    return cell.init_state(params, at(drive(synapse), 0)), step


def run(neuron, synapse, inputs):
    """Return v and spikes [T, N]; every wrapper must agree with the pair alone in every step."""
    state, step = stepping(neuron, synapse)
    outputs = []
    for n in range(T):
        (state, output), *wrapped = step(state, at(inputs, n))
        for other, seen in wrapped:
            assert jax.tree.all(jax.tree.map(np.array_equal, other, state))
            assert np.array_equal(seen.spikes, output.spikes) and np.array_equal(seen.v, output.v)
        outputs.append(output)
    return np.array([y.v for y in outputs]), np.array([y.spikes for y in outputs])


@every_pair
def test_a_pair_is_the_fine_integration(neuron, synapse):
    expected, fired = runge_kutta(neuron, synapse)
    v, spikes = run(neuron, synapse, drive(synapse))
    assert (fired.sum(axis=0) >= 2).all() and fired.sum() < 0.3 * fired.size
    np.testing.assert_array_equal(spikes, fired)
    # Runge-Kutta in steps of 0.01 ms errs by some 1e-10 mV; conductances at 0.5 ms by 1e-8, and 1e-7 beside w; NMDA's
    # fourth order leaves 1e-4, of more than 100 nS and voltages that move by 2 mV in such a step.
    tolerance = {"conductance": 1e-6, "mixed": 2e-4}
    np.testing.assert_allclose(v, expected, rtol=0, atol=tolerance.get(synapse, 1e-9))


@every_pair
def test_a_synapse_at_rest_changes_nothing(neuron, synapse):
    v, spikes = run(neuron, synapse, drive(synapse, scale=0.0))
    _, bare = jl.simulate(*NEURONS[neuron], CURRENT)
    assert bare.spikes.sum() > 5
    np.testing.assert_array_equal(spikes, bare.spikes)
    np.testing.assert_allclose(v, bare.v, rtol=0, atol=1e-11)  # 120 roundings of 70 mV


def test_jumps_onto_a_neuron_with_other_synapses():
    """As many neurons as the jumps reach, under one current that all share."""
    inner, own = composed("plain", "current")
    cell, params = jl.Synaptic(inner, jl.VoltageJump()), jl.SynapticParams(neuron=own)
    single = replace(params, neuron=replace(own, neuron=jl.LIFParams(t_ref=0.0)))
    x = jl.Drive(arrivals("jump"), jl.Drive(arrivals("current")[:, :, 0], CURRENT[:, 0]))
    _, together = jl.simulate(cell, single, x)
    for n in range(N):
        alone = x._replace(arrivals=x.arrivals[:, n])
        _, one = jl.simulate(cell, single, alone)
        np.testing.assert_allclose(together.v[:, n], one.v, rtol=0, atol=1e-11)
    assert together.v.shape == (T, N) and together.spikes.sum() > 10


# ------------------------------------------------------------------------------------------------------------- refusals


@dataclass(frozen=True)
class Own(jl.LIF):
    """A user's neuron: another way to integrate, which the synapses of the plain one know nothing of."""

    def integrate(self, params, state, x):
        return state, state.v + self.dt / params.tau_m * (params.v_rest - state.v + params.r_m * x)


LIF, SYNAPTIC = jl.LIF(dt=DT), jl.Synaptic(jl.LIF(dt=DT), jl.ExponentialCurrent())
NO_VERBS = [jl.PreciseLIF(dt=DT), jl.HodgkinHuxley(), jl.LeakyIntegrator(), jl.TeacherForced(LIF), jl.EscapeNoise(LIF)]
NO_VERBS += [Recurrent(LIF), Feedback(LIF, Dense()), Arriving(SYNAPTIC), SnnTorchLeaky(), Dense(), Sequential((LIF,))]
IN_PLACE = [SYNAPTIC, jl.TeacherForced(LIF), jl.EscapeNoise(LIF)]


@pytest.mark.parametrize("neuron", NO_VERBS, ids=lambda cell: type(cell).__name__)
def test_a_cell_without_the_verbs_is_refused_by_every_wrapper(neuron):
    wrappers = [lambda cell, kind=kind: jl.Synaptic(cell, kind) for kind, *_ in SYNAPSES.values()]
    for wrapper in (*wrappers, jl.TeacherForced, jl.EscapeNoise):
        with pytest.raises(ValueError, match=rf"^neuron = {type(neuron).__name__}: \w+ needs a neuron with integrate"):
            wrapper(neuron)


@pytest.mark.parametrize("neuron", [Own(dt=DT), NorseLIFBox(), SYNAPTIC], ids=lambda cell: type(cell).__name__)
def test_a_neuron_that_integrates_in_its_own_way_takes_jumps_alone(neuron):
    assert jl.Synaptic(neuron, jl.VoltageJump()).neuron == neuron
    for synapse, verb in ((jl.ExponentialCurrent(), "respond"), (jl.Conductance(), "integrate_conductances")):
        with pytest.raises(ValueError, match=rf"^neuron = {type(neuron).__name__}: .* has no {verb} of its own$"):
            jl.Synaptic(neuron, synapse)


@pytest.mark.parametrize("neuron", IN_PLACE, ids=lambda cell: type(cell).__name__)
def test_a_layer_refuses_what_takes_no_array(neuron):
    layers = [Recurrent, lambda cell: Sequential((Dense(), cell))]
    layers += [lambda cell: Feedback(LIF, cell), lambda cell: Feedback(jl.TeacherForced(cell), Dense())]
    for layer in layers if neuron.takes is not Noisy else layers[:-1]:
        with pytest.raises(ValueError, match=r"passes an array, and \w+ takes a|needs a neuron with integrate"):
            layer(neuron)


def test_a_user_of_arriving_and_of_feedback_is_told_what_they_take():
    with pytest.raises(ValueError, match="^neuron = LIF: Arriving needs a Synaptic or PreciseSynaptic neuron"):
        Arriving(LIF)
    with pytest.raises(ValueError, match="^neuron = Synaptic: Arriving passes an array"):
        Arriving(jl.Synaptic(SYNAPTIC, jl.VoltageJump()))
    with pytest.raises(ValueError, match="^neuron = LeakyIntegrator: Feedback feeds spikes back, and it has none"):
        Feedback(jl.LeakyIntegrator(dt=DT), Dense())
    with pytest.raises(ValueError, match="^neuron gives .*: a neuron that feeds back needs spikes"):
        params = RecurrentParams(neuron=DenseParams(weight=jnp.eye(2)), weight=jnp.eye(2))
        jl.simulate(Recurrent(Dense()), params, jnp.ones((3, 2)))


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: jl.Synaptic(jl.LIF, jl.VoltageJump()),
            "neuron = the class LIF: Synaptic needs a neuron",
        ),
        (lambda: jl.Synaptic(LIF, jl.VoltageJump), "synapse = the class VoltageJump: Synaptic needs a kind of synapse"),
        (lambda: jl.Synaptic(LIF, LIF), "synapse = LIF: Synaptic needs a kind of synapse"),
        (
            lambda: jl.Synaptic(jl.ResonantLIF(), jl.VoltageJump(refractory_input=True)),
            "neuron = ResonantLIF: Synaptic needs a neuron with integrate, emit, settle, remaining",
        ),
        (lambda: jl.Kinds({"a": jl.VoltageJump()}), "kinds has a = VoltageJump: it must be a current or a conductance"),
        (
            lambda: jl.Kinds((("a", jl.NMDA()),) * 2),
            r"kinds = \['a', 'a'\]: there must be one at least, each of its own",
        ),
        (lambda: mixed(e_rev=-50.0), r"e_rev of gaba\[0\] = -50 mV: what inhibits must reverse below v_th"),
        (lambda: mixed("ampa", e_rev=-71.0), "e_rev of ampa = -71 mV: what excites must reverse above v_rest"),
        (lambda: mixed("nmda", mg=-1.0), "mg = -1 mM: mg must be 0 mM or more"),
        (lambda: mixed(tau_rise=0.0), "tau_rise = 0 ms: tau_rise must be greater than 0 ms"),
        (
            lambda: mixed(arrivals=(5, 3, N)),
            r"arrivals have shape \(3, 3\) in a step: they must be \[4\] or \[4, N\], of a",
        ),
        (
            lambda: mixed(arrivals=(5, 4, N), weight=-1.0),
            r"arrivals\[0, 0\] = -1 nS: a conductance must be 0 nS or more",
        ),
        (lambda: Feedback(LIF, None), "path = NoneType: Feedback needs a cell"),
        (lambda: driven((3, 2, 3), (3, 4)), r"input has shape \(4,\) in a step, and what comes with it \(3,\)"),
        (lambda: driven((3,), (3,)), "arrivals are one number a step"),
        (lambda: driven((3, 1), (3,)), r"e_rev has shape \(2,\): it does not fit arrivals \(1,\)"),
        (lambda: driven((3, 2), (3,), noise=-1.0), "noise.0. = -1: noise must be 0 or more"),
        (lambda: forced((3, 2), (3, 4)), r"input has shape \(2,\) in a step, and what comes with it \(4,\)"),
        (lambda: forced((3,), (3,), 0.5), "spikes.0. = 0.5: spikes must be 0 or 1"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


def mixed(name="gaba", *, arrivals=(5, 4, N), weight=0.0, **change):
    cell, params = composed("plain", "mixed")
    own = params.synapse | {name: replace(params.synapse[name], **change)}
    x = jl.Drive(np.full(arrivals, weight), np.zeros((arrivals[0], N)))
    return jl.simulate(cell, replace(params, synapse=own), x)


def forced(current, spikes, value=0.0):
    return jl.simulate(jl.TeacherForced(LIF), jl.LIFParams(), jl.Forced(jnp.zeros(current), jnp.full(spikes, value)))


def test_one_current_drives_as_many_neurons_as_there_are_trains_of_spikes_or_noise():
    """Each equals itself alone."""
    spikes, current = jnp.zeros((20, 3)).at[4, 0].set(1.0).at[9, 1].set(1.0), jnp.full(20, 200.0)
    noise = jax.random.exponential(jax.random.key(0), (20, 3))
    for wrapper, inputs in ((jl.TeacherForced, jl.Forced(current, spikes)), (jl.EscapeNoise, Noisy(current, noise))):
        together = jl.simulate(wrapper(LIF), NoisyParams(), inputs)[1].v
        for i in range(3):
            alone = jl.simulate(wrapper(LIF), NoisyParams(), type(inputs)(current, inputs[1][:, i]))[1].v
            np.testing.assert_allclose(together[:, i], alone, rtol=0, atol=1e-12)  # rounding of 70 mV
        assert np.abs(np.diff(together, axis=1)).max() > 0.1


def driven(arrivals, current, noise=None):
    cell, own = jl.Synaptic(LIF, jl.Conductance()), jl.ConductanceParams(e_rev=E_REV)
    x, params = jl.Drive(jnp.zeros(arrivals), jnp.zeros(current)), jl.SynapticParams(neuron=NoisyParams(), synapse=own)
    if noise is None:
        return jl.simulate(cell, params, x)
    return jl.simulate(jl.EscapeNoise(cell), params, Noisy(x, jnp.full(current, noise)))


@pytest.mark.parametrize(
    "cell, params, message",
    [
        (jl.AdaptiveLIF(), jl.LIFParams(), "params = LIFParams: AdaptiveLIF takes AdaptiveLIFParams"),
        (jl.ResonantLIF(), jl.LIFParams(), "params = LIFParams: ResonantLIF takes ResonantLIFParams"),
        (jl.LIF(), jl.LeakyParams(), "params = LeakyParams: it has no v_th, which LIF needs"),
        (jl.HodgkinHuxley(), jl.LIFParams(), "params = LIFParams: HodgkinHuxley takes HodgkinHuxleyParams"),
        (jl.LeakyIntegrator(), jl.ResonantLIFParams(), "params = ResonantLIFParams: LeakyIntegrator does not have"),
        (jl.LIF(), NEURONS["adaptive"][1], "params = AdaptiveLIFParams: LIF does not have their a"),
        (jl.PreciseLIF(), jl.ResonantLIFParams(), "params = ResonantLIFParams: PreciseLIF does not have their a"),
    ],
)
def test_parameters_of_another_neuron_are_refused(cell, params, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        jl.simulate(cell, params, jnp.zeros((3, N)))


@pytest.mark.parametrize(
    "kind, own, message",
    [
        (
            jl.ExponentialCurrent(),
            SYNAPSES["conductance"][1],
            "params.synapse = ConductanceParams: .* CurrentParams",
        ),
        (jl.Conductance(), SYNAPSES["current"][1], "params.synapse = CurrentParams: .* takes ConductanceParams"),
        (jl.Conductance(), None, "params.synapse = NoneType: Conductance takes ConductanceParams"),
        (jl.VoltageJump(), SYNAPSES["current"][1], "params.synapse = CurrentParams: VoltageJump takes none"),
    ],
)
def test_parameters_of_another_synapse_are_refused(kind, own, message):
    cell, params = jl.Synaptic(jl.LIF(), kind), jl.SynapticParams(synapse=own)
    with pytest.raises(ValueError, match=f"^{message}"):
        jl.simulate(cell, params, jl.Drive(jnp.zeros((3, 2)), jnp.zeros(3)))
    with pytest.raises(ValueError, match=r"^inputs = ArrayImpl: Synaptic takes a Drive\(arrivals, input\)"):
        jl.simulate(jl.Synaptic(jl.LIF(), jl.VoltageJump()), jl.SynapticParams(), jnp.zeros(3))
    with pytest.raises(ValueError, match="^params = LIFParams: it has no delta_v, which EscapeNoise needs"):
        jl.simulate(jl.EscapeNoise(jl.LIF()), jl.LIFParams(), jl.escape_inputs(jax.random.key(0), jnp.zeros((3, 1))))


def test_a_negative_conductance_is_refused_wherever_it_is_at_hand():
    cell, params = composed("plain", "conductance")
    x = drive("conductance")
    x.arrivals[4, 1, 2] = -2.0
    message = r"arrivals\[4, 1, 2\] = -2 nS: a conductance must be 0 nS or more; what inhibits is its e_rev"
    for wrapped, inputs in (
        (cell, x),
        (jl.TeacherForced(cell), jl.Forced(x, np.zeros((T, N)))),
        (jl.EscapeNoise(cell), Noisy(x, np.ones((T, N)))),
    ):
        given = replace(params, neuron=NoisyParams(**vars(params.neuron)))
        with pytest.raises(ValueError, match=f"^{message}"):
            jl.simulate(wrapped, given, inputs)
    layer, weights = Arriving(cell, kinds=2), DenseParams(weight=np.array([[0.0] * 5 + [-3.0]] * N))
    inputs, rule = np.zeros((T, N)), "a weight that arrives as a conductance must be 0 nS or more"
    with pytest.raises(ValueError, match=rf"^layer 1 \(Arriving\): weight\[0, 5\] = -3 nS: {rule}"):
        jl.simulate(Sequential((Dense(), layer)), (weights, params), inputs)
    with pytest.raises(ValueError, match=rf"^weight\[0, 5\] = -3 nS: {rule}"):
        jl.simulate(Feedback(layer, Dense()), FeedbackParams(neuron=params, path=weights), np.zeros((T, 2 * N)))
    with pytest.raises(ValueError, match=r"^arrivals\[0, 0\] = -1 nS"):
        jl.simulate(layer, params, np.full((T, 2 * N), -1.0))
    currents = Arriving(SYNAPTIC, kinds=2), replace(params, synapse=SYNAPSES["current"][1])
    jax.eval_shape(lambda x: jl.simulate(Sequential((Dense(), currents[0])), (weights, currents[1]), x), inputs)


def test_a_negative_conductance_under_a_trace_is_nan():
    state, step = stepping("plain", "conductance")
    x = jl.Drive(jnp.full((2, N), -1.0).at[:, 0].set(0.0), jnp.zeros(N))
    (state, _), *_ = step(state, x)
    (_, output), *_ = step(state, x)
    np.testing.assert_array_equal(np.isnan(output.v), [False, True, True])
