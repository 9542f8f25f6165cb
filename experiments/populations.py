"""Do networks of jaxlif do what the same networks do in NEST?

Question: are rates, irregularity and synchrony of standard networks those of NEST, within what a seed changes?

Method: each network is written once, with the builder's words and NEST's name and parameters of its neuron; ``build``
makes it here, ``populations_nest.py`` in NEST, with NEST's rules, random numbers and integration. dt = 0.1 ms.
* CUBA and COBA: 3200 + 800 neurons with synaptic currents or conductances (Vogels & Abbott 2005; Brette et al. 2007),
  CUBA with a rest 1 mV above threshold; COBA, silent by itself, is woken by Poisson trains in its first 50 ms.
* Brunel (2000): 2000 + 500 neurons, in-degrees 200 and 50, J = 0.3 mV, delays 1.5 ms, Poisson drive of eta times what
  alone reaches threshold; his four regimes by (g, eta): SR (3, 2), fast SI (6, 4), AI (5, 2), slow SI (4.5, 0.9).
* The microcircuit of Potjans & Diesmann (2014) with a tenth of its neurons and in-degrees: weights larger by the root
  of ten, and a constant current that makes up for the mean input so lost at the full circuit's rates.

Of 200 to 1200 ms and by the same functions for both: rates; coefficients of variation (CV) of intervals, over neurons
with three or more; and of the first population the mean correlation of counts in 5 ms, the synchrony, which is the
standard deviation of the population's rate in 1 ms over its mean, and in the synchronous regimes the frequency at which
that rate's spectrum peaks, in steps of 2 Hz. Differences of means over seeds are in standard deviations of NEST's
seeds, the largest of each network; and in their own standard errors, above 3 by chance in one of 370.

Command: python experiments/populations.py, after experiments/peers_nest_brian2.sh nest; a quarter of an hour (--quick:
a smoke run of two seeds of two networks that writes nothing)
"""

import json
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import claims
import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from command_line import run_script

from jaxlif import plotting
from jaxlif.interop import from_nest
from jaxlif.networks import (
    Activity,
    FixedInDegree,
    FixedNumber,
    Network,
    NetworkWarning,
    Pairwise,
    Population,
    Projection,
    build,
    poisson_drive,
    run,
)

HERE = Path(__file__).resolve().parent
NEST = HERE.parent / ".cache" / "peers" / "nest" / "bin" / "python"
DT = 0.1  # ms


@dataclass(frozen=True)
class Config:
    """What is simulated."""

    seeds: tuple[int, ...] = tuple(range(10))
    networks: tuple[str, ...] = ("CUBA", "COBA", "SR", "fast SI", "AI", "slow SI", "microcircuit")
    start: float = 200.0  # ms
    stop: float = 1200.0  # ms


QUICK = Config(seeds=(0, 1), networks=("CUBA", "AI"), stop=800.0)


def main(config: Config, write: bool) -> None:
    if not NEST.is_file():
        raise SystemExit("NEST is not there: experiments/peers_nest_brian2.sh nest")
    rows, shown = [], {}
    for name in config.networks:
        model = MODELS[name]()
        both = [[a.since(config.start) for a in f(model, config.seeds, config.stop)] for f in (here, there)]
        rows += compared(name, *both)
        shown[name] = both
        print(claims.table(rows[-5:]), flush=True)
    claims.publish("populations", rows, lambda: draw(shown), write=write)


# ------------------------------------------------------------------------------------------------------- the networks


class Uniform(NamedTuple):
    """Numbers from low to high."""

    low: float
    high: float

    def __call__(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw n numbers."""
        return rng.uniform(self.low, self.high, n)


class Normal(NamedTuple):
    """Normal numbers, drawn anew where they are below ``least`` or above ``most``, on a grid where there is one."""

    mean: float
    sd: float
    least: float = -np.inf
    most: float = np.inf
    grid: float = 0.0

    def __call__(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw n numbers."""
        x = rng.normal(self.mean, self.sd, n)
        while (out := (x < self.least) | (x > self.most)).any():
            x[out] = rng.normal(self.mean, self.sd, out.sum())
        return np.rint(x / self.grid) * self.grid if self.grid else x


Neuron = tuple[str, dict[str, float]]


@dataclass(frozen=True, eq=False)
class Model:
    """A network: NEST's name and parameters of its neuron, and what ``build`` and ``run`` take."""

    neuron: Neuron
    populations: dict[str, Population]
    projections: list[Projection]
    drives: list[Any] = field(default_factory=list)
    currents: dict[str, float] = field(default_factory=dict)  # pA
    kick: float | None = None  # ms, after which the drives end


def cuba() -> Model:
    neuron = "iaf_psc_exp", {"C_m": 20.0, "tau_m": 20.0, "tau_syn_ex": 5.0, "tau_syn_in": 10.0}
    neuron[1].update(E_L=-49.0, V_th=-50.0, V_reset=-60.0, t_ref=5.0)
    return vogels_abbott(neuron, 1.62, -9.0)


def coba() -> Model:
    neuron = "iaf_cond_exp", {"C_m": 200.0, "g_L": 10.0, "tau_syn_ex": 5.0, "tau_syn_in": 10.0, "E_ex": 0.0}
    neuron[1].update(E_in=-80.0, E_L=-60.0, V_th=-50.0, V_reset=-60.0, t_ref=5.0)
    wake = [poisson_drive(name, rate=500.0, weight=6.0, receptor="exc") for name in ("E", "I")]
    return replace(vogels_abbott(neuron, 6.0, 67.0), drives=wake, kick=50.0)


def vogels_abbott(neuron: Neuron, up: float, down: float) -> Model:
    some = of_kind(neuron, ("exc", "inh"), Uniform(-60.0, -50.0))
    synapses = [
        Projection(source="E", target="*", rule=Pairwise(0.02), weight=up, receptor="exc"),
        Projection(source="I", target="*", rule=Pairwise(0.02), weight=down, receptor="inh"),
    ]
    return Model(neuron, {"E": some(3200), "I": some(800)}, synapses)


def brunel(g: float, eta: float) -> Model:
    neuron = "iaf_psc_delta", {"C_m": 20.0, "tau_m": 20.0, "E_L": 0.0, "V_th": 20.0, "V_reset": 10.0, "t_ref": 2.0}
    some, jump = of_kind(neuron, ("jump",)), 0.3
    synapses = [
        Projection(source="E", target="*", rule=FixedInDegree(200), weight=jump, delay=1.5),
        Projection(source="I", target="*", rule=FixedInDegree(50), weight=-g * jump, delay=1.5),
    ]
    rate = 1e3 * eta * 20.0 / (jump * 20.0)
    drives = [poisson_drive(name, rate=rate, weight=jump) for name in ("E", "I")]
    return Model(neuron, {"E": some(2000), "I": some(500)}, synapses, drives)


# By target (rows) and source, as in table 5 of Potjans & Diesmann 2014; then mean rates of the full circuit, Hz.
NEURONS = {"2/3E": 20683, "2/3I": 5834, "4E": 21915, "4I": 5479, "5E": 4850, "5I": 1065, "6E": 14395, "6I": 2948}
CHANCE = [
    [0.1009, 0.1689, 0.0437, 0.0818, 0.0323, 0.0, 0.0076, 0.0],
    [0.1346, 0.1371, 0.0316, 0.0515, 0.0755, 0.0, 0.0042, 0.0],
    [0.0077, 0.0059, 0.0497, 0.135, 0.0067, 0.0003, 0.0453, 0.0],
    [0.0691, 0.0029, 0.0794, 0.1597, 0.0033, 0.0, 0.1057, 0.0],
    [0.1004, 0.0622, 0.0505, 0.0057, 0.0831, 0.3726, 0.0204, 0.0],
    [0.0548, 0.0269, 0.0257, 0.0022, 0.06, 0.3158, 0.0086, 0.0],
    [0.0156, 0.0066, 0.0211, 0.0166, 0.0572, 0.0197, 0.0396, 0.2252],
    [0.0364, 0.001, 0.0034, 0.0005, 0.0277, 0.008, 0.0658, 0.1443],
]
OUTSIDE = [1600, 1500, 2100, 1900, 2000, 1900, 2900, 2100]
RATES = [0.971, 2.868, 4.746, 5.396, 8.142, 9.078, 0.991, 7.523]


def microcircuit(scale: float = 0.1, weight: float = 87.8) -> Model:
    neuron = "iaf_psc_exp", {"C_m": 250.0, "tau_m": 10.0, "tau_syn_ex": 0.5, "tau_syn_in": 0.5}
    neuron[1].update(E_L=-65.0, V_th=-50.0, V_reset=-65.0, t_ref=2.0)
    some, names, sizes = (
        of_kind(neuron, ("exc", "inh"), Normal(-58.0, 10.0)),
        list(NEURONS),
        np.array([*NEURONS.values()]),
    )
    synapses = np.log1p(-np.array(CHANCE)) / np.log1p(-1.0 / np.outer(sizes, sizes))
    mean = weight * np.array([[1.0, -4.0] * 4] * 8)
    mean[0, 2] *= 2.0  # 4E to 2/3E
    lost = (mean * synapses / sizes[:, None]) @ RATES + 8.0 * weight * np.array(OUTSIDE)  # pA/s
    constant = 1e-3 * 0.5 * (1.0 - scale**0.5) * lost
    projections = [
        Projection(
            source=names[j],
            target=names[i],
            rule=FixedNumber(round(scale**2 * synapses[i, j])),
            weight=of_sign(mean[i, j] / scale**0.5),
            delay=Normal(d := 0.75 if j % 2 else 1.5, d / 2, least=DT / 2, grid=DT),
            receptor="inh" if j % 2 else "exc",
        )
        for i, j in np.argwhere(synapses > 0.0)
    ]
    drives = [
        poisson_drive(name, rate=8.0 * scale * k, weight=weight / scale**0.5, receptor="exc")
        for name, k in zip(names, OUTSIDE, strict=True)
    ]
    populations = {name: some(round(scale * n)) for name, n in NEURONS.items()}
    return Model(neuron, populations, projections, drives, dict(zip(names, constant, strict=True)))


def of_sign(mean: float) -> Normal:
    """Return weights that vary by a tenth and keep their sign."""
    bound = {"least": 0.0} if mean > 0.0 else {"most": 0.0}
    return Normal(float(mean), float(abs(mean)) / 10.0, **bound)


def of_kind(neuron: Neuron, receptors: tuple[str, ...], v: Any = None) -> Callable[..., Population]:
    """Return what makes a population of so many of these neurons."""
    cell, params = from_nest(*neuron, dt=DT)
    return lambda size: Population(size=size, cell=cell, params=params, receptors=receptors, v=v)


MODELS: dict[str, Callable[[], Model]] = {
    "CUBA": cuba,
    "COBA": coba,
    "SR": lambda: brunel(3.0, 2.0),
    "fast SI": lambda: brunel(6.0, 4.0),
    "AI": lambda: brunel(5.0, 2.0),
    "slow SI": lambda: brunel(4.5, 0.9),
    "microcircuit": microcircuit,
}
PEAKED = ("SR", "fast SI", "slow SI")


# ------------------------------------------------------------------------------------------------------ here and there


def here(model: Model, seeds: tuple[int, ...], duration: float) -> list[Activity]:
    with warnings.catch_warnings():
        # A network that fires as fast as it can, or dies, is compared too.
        warnings.simplefilter("ignore", NetworkWarning)
        return [run(make(model, seed), duration - (model.kick or 0.0), inputs=model.currents) for seed in seeds]


def make(model: Model, seed: int) -> Network:
    """Build a network, and where its drives end, let it run until then."""
    network = build(jax.random.key(seed), model.populations, model.projections, model.drives)
    if model.kick is None:
        return network
    state = run(network, model.kick, inputs=model.currents).state
    ended = {name: replace(drive, rate=0.0) for name, drive in network.params.drives.items()}
    return network._replace(state=state, params=replace(network.params, drives=ended))


def there(model: Model, seeds: tuple[int, ...], duration: float) -> list[Activity]:
    found = ask_nest(model, seeds, [duration])[0]
    sizes = {name: p.size for name, p in model.populations.items()}

    def _activity(seed: int) -> Activity:
        times, neurons = ({name: found[f"{seed} {what} {name}"] for name in sizes} for what in ("times", "neurons"))
        return Activity(sizes, 0.0, duration, times, neurons)

    return [_activity(seed) for seed in seeds]


def ask_nest(
    model: Model, seeds: tuple[int, ...], parts: list[float]
) -> tuple[dict[str, np.ndarray], list[list[float]]]:
    """Run NEST on a network for some parts, ms; return all spikes, and the seconds of each part by seed."""
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "spikes.npz")
        asked = json.dumps(for_nest(model) | {"seeds": seeds, "parts": parts, "file": file, "dt": DT})
        done = subprocess.run(
            [str(NEST), str(HERE / "populations_nest.py")], input=asked, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"NEST failed: {done.stderr.strip().splitlines()[-1]}")
        with np.load(file) as arrays:
            return dict(arrays), np.array(json.loads(done.stdout.splitlines()[-1]))


def for_nest(model: Model) -> dict[str, Any]:
    """Return a network in NEST's words, where inhibitory weights are negative always."""
    rest = model.neuron[1]["E_L"]
    names = list(model.populations)
    populations = [
        {"size": p.size, "V_m": value(rest if p.v is None else p.v), "I_e": float(model.currents.get(name, 0.0))}
        for name, p in model.populations.items()
    ]
    projections = [
        {
            "source": p.source,
            "target": names if p.target == "*" else [p.target],
            "rule": rule(p.rule),
            "weight": value(p.weight if isinstance(p.weight, Normal) or p.receptor != "inh" else -abs(p.weight)),
            "delay": DT if p.delay is None else value(p.delay),
        }
        for p in model.projections
    ]
    drives = [
        {"target": d.population, "rate": float(p.rate), "weight": float(p.weight), "stop": model.kick}
        for d, p in model.drives
    ]
    return {"neuron": model.neuron, "populations": dict(zip(names, populations, strict=True))} | {
        "projections": projections,
        "drives": drives,
    }


def value(given: Any) -> Any:
    return given._asdict() if isinstance(given, Uniform | Normal) else float(given)


def rule(given: Any) -> dict[str, Any]:
    """Return one of the three rules in NEST's words."""
    if isinstance(given, Pairwise):
        return {"rule": "pairwise_bernoulli", "p": given.probability, "allow_autapses": given.autapses}
    every = {"allow_autapses": True, "allow_multapses": True}
    if isinstance(given, FixedNumber):
        return {"rule": "fixed_total_number", "N": given.number} | every
    return {"rule": "fixed_indegree", "indegree": given.number} | every


# --------------------------------------------------------------------------------------------------------- comparisons


def compared(name: str, ours: list[Activity], theirs: list[Activity]) -> list[dict[str, Any]]:
    a, b = measured(name, ours), measured(name, theirs)
    pairs = [(f"{name}, {what}{who}", x[what]) for what in a for who, x in (("", a), (", NEST", b))]
    rows = [claims.over_seeds(what, x, "Hz" if "rate" in what else "") for what, x in pairs]
    apart = {what: abs(np.mean(a[what]) - np.mean(b[what])) for what in a}
    spread = {what: np.std(b[what], ddof=1) for what in a}
    error = {what: np.hypot(np.std(a[what], ddof=1), spread[what]) / len(ours) ** 0.5 for what in a}
    largest, worst = (max(apart[what] / x[what] for what in a) for x in (spread, error))
    words = f"{name}: largest difference of {len(a)} means"
    rows += [
        claims.claim(words, largest, "standard deviations of NEST's seeds", "<= 3", seeds=len(ours)),
        claims.claim(f"{name}: the same", worst, "standard errors", seeds=len(ours)),
    ]
    if name == "microcircuit":
        inside = sum(min(b[p]) <= np.mean(a[p]) <= max(b[p]) for p in a if "rate" in p)
        rows.append(
            claims.claim(f"{name}: mean rates between NEST's lowest and highest seed, of 8", inside, "", ">= 8")
        )
    return rows


def measured(name: str, runs: list[Activity]) -> dict[str, list[float]]:
    """Return by quantity the number of each seed."""
    names = list(runs[0].sizes)
    found = {f"{p}: rate": [a.rates[p] for a in runs] for p in names}
    if name != "microcircuit":
        found |= {f"{p}: CV": [a.cv(p) for a in runs] for p in names}
    found[f"{names[0]}: correlation"] = [a.correlation(names[0], 5.0) for a in runs]
    found[f"{names[0]}: synchrony"] = [synchrony(a.rate(names[0], 1.0)[1]) for a in runs]
    if name in PEAKED:
        found[f"{names[0]}: peak of the rate's spectrum"] = [peak(a) for a in runs]
    return found


def synchrony(rate: np.ndarray) -> float:
    return float(rate.std() / rate.mean())


def peak(activity: Activity) -> float:
    """Return where the spectrum of the first population is highest above 4 Hz, Hz."""
    frequency, power = activity.spectrum(next(iter(activity.sizes)))
    return float(frequency[2 + np.argmax(power[2:])])


def draw(shown: dict[str, list[list[Activity]]]) -> plt.Figure:
    """Draw for each network a raster with its rates, and the microcircuit's rates by population."""
    with plt.rc_context(plotting.STYLE):
        figure, axes = plt.subplots(4, 4, figsize=(13.0, 8.0), layout="constrained", height_ratios=[3, 1, 3, 1])
        for i, (name, both) in enumerate(shown.items()):
            raster, below = axes[2 * (i // 4) : 2 * (i // 4) + 2, i % 4]
            draw_raster(raster, below, name, both)
        for ax in axes[2:, 3]:
            ax.remove()
        if "microcircuit" in shown:
            draw_rates(figure.add_subplot(axes[0, 0].get_gridspec()[2:, 3]), shown["microcircuit"])
    return figure


def draw_raster(raster: Any, below: Any, name: str, both: list[list[Activity]]) -> None:
    a, start, width = both[0][0], both[0][0].start + 300.0, 200.0
    every = max(1, round(sum(a.rates[p] * n for p, n in a.sizes.items()) * 1e-3 * width / 1500.0))  # 1500 spikes
    trains = {p: [t[(t > start) & (t < start + width)] for t in a.trains(p)[::every]] for p in a.sizes}
    plotting.raster(trains, ax=raster, ylabel="", markersize=2.5, color=plotting.PALETTE[0])
    raster.set(title=name, xlabel="", xlim=(start, start + width))
    first = next(iter(a.sizes))
    for own, label, color in zip(both, ("jaxlif", "NEST"), plotting.PALETTE, strict=False):
        t, rate = own[0].rate(first, 1.0)
        below.plot(t, rate, linewidth=0.8, color=color, label=label)
    below.set(xlim=(start, start + width), xlabel="time (ms)", ylabel=f"{first} (Hz)", ylim=(0.0, None))


def draw_rates(ax: Any, both: list[list[Activity]]) -> None:
    for own, label, color, side in zip(both, ("jaxlif", "NEST"), plotting.PALETTE, (-0.15, 0.15), strict=False):
        rates = np.array([[*a.rates.values()] for a in own])
        place = np.arange(rates.shape[1]) + side
        ax.errorbar(
            place, rates.mean(axis=0), rates.std(axis=0, ddof=1), fmt="o", markersize=4, color=color, label=label
        )
    ax.set_xticks(np.arange(rates.shape[1]), [*both[0][0].sizes])
    ax.set(ylabel="rate (Hz)", title="microcircuit, mean ± sd of seeds", ylim=(0.0, None))
    ax.legend(frameon=False)


if __name__ == "__main__":
    run_script(main, Config(), QUICK, __doc__)
