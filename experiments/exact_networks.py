"""Are gradients through spike times exact, and what do they cost beside eventax?

Question: do a network of ``PreciseDense`` layers and an event-driven library find the same spikes and gradients, in
what time?

Method: eventax, in its own environment, solves the same equations from event to event, differentiated through its
solver. Inputs of 5 channels at random times reach 10 hidden and 3 output neurons; the loss is the mean over 100 samples
of the sum of the outputs' first spikes. A reset to -200 lets every neuron spike once, since eventax's refractoriness is
not exact. Its solver is Tsit5 at 0.1 ms. Both are timed in turn, compilation apart, medians of five. Central
differences, of a fourth order and with the best of three steps, check the gradient too, and the same network is run at
a dt of 0.5 and 0.05 ms.

Command: python experiments/exact_networks.py (five minutes on two cores, after experiments/peers_eventax.sh; --quick: a
smoke run that writes nothing)
"""

import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from benchmarks.timing import interleave, timed
from claims import claim, table, write_claims
from command_line import run_script

import jaxlif as jl
from jaxlif.networks import (
    PreciseDense,
    PreciseDenseParams,
    PreciseRecurrent,
    Sequential,
    timed_spikes,
)

HERE = Path(__file__).resolve().parent
EVENTAX = HERE.parent / ".cache" / "peers" / "eventax" / "bin" / "python"


@dataclass(frozen=True)
class Config:
    """Every number of the experiment."""

    batch: int = 100
    num_in: int = 5
    hidden: int = 10
    out: int = 3
    tau_m: float = 10.0  # ms
    tau_syn: float = 5.0  # ms
    v_reset: float = -200.0
    t_end: float = 20.0  # ms
    longest: float = 2.0  # delay, ms
    step: float = 0.1  # of eventax's solver, ms
    rounds: int = 5
    differences: int = 40  # weights and delays, drawn, in which they are taken
    seed: int = 0


QUICK = Config(batch=4, rounds=1, differences=2)
CASES = {"without delays": 5.0, "with delays": 5.0, "recurrent, with delays": 0.5}  # dt, ms


def main(config: Config, write: bool) -> None:
    if not EVENTAX.is_file():
        raise SystemExit("eventax is not installed: run experiments/peers_eventax.sh")
    rows = []
    parts = [partial(beside_eventax, config, name, dt) for name, dt in CASES.items()]
    for part in (*parts, partial(any_dt, config)):
        found = part()
        print(table(found), flush=True)
        rows += found
        if write:
            write_claims("exact_networks", rows)


# --- beside eventax ---------------------------------------------------------------------------------------


def problem(config: Config, name: str) -> dict[str, Any]:
    """Return input times, weights and delays, as eventax's script takes them."""
    rng = np.random.default_rng(config.seed)
    sizes = {"in": (config.num_in, config.hidden), "out": (config.hidden, config.out), "rec": (config.hidden,) * 2}
    strength = {"in": (2.0, 1.5), "out": (1.0, 0.7), "rec": (0.0, 0.7)}
    blocks = list(sizes)[: 3 if "recurrent" in name else 2]
    found = {"times": rng.uniform(0.2, 0.5 * config.t_end, (config.batch, config.num_in))}
    found |= {f"w_{block}": rng.normal(*strength[block], sizes[block]) for block in blocks}
    if "delays" in name and "without" not in name:
        found |= {f"d_{block}": rng.uniform(0.5, config.longest, sizes[block]) for block in blocks}
    return found


def ours(config: Config, dt: float, given: dict[str, Any]) -> Callable[[dict[str, Any]], jax.Array]:
    """Return the function from weights and delays to the first spikes of the outputs, [B, O], nan for none."""
    longest = config.longest if "d_in" in given else 0.0
    neuron = jl.PreciseSynaptic(jl.PreciseLIF(dt=dt), jl.ExponentialCurrent())
    hidden = PreciseRecurrent if "w_rec" in given else PreciseDense
    network = Sequential((hidden(neuron, longest), PreciseDense(neuron, longest)))
    single = jl.LIFParams(tau_m=config.tau_m, r_m=1.0, v_rest=0.0, v_th=1.0, v_reset=config.v_reset, t_ref=dt)
    params = jl.SynapticParams(neuron=single, synapse=jl.CurrentParams(tau_syn=config.tau_syn))

    def layer(p: dict[str, Any], *blocks: str) -> PreciseDenseParams:
        weight, delay = (
            jnp.concatenate([p[f"{kind}_{b}"] for b in blocks]) if f"{kind}_in" in p else 0.0 for kind in "wd"
        )
        return PreciseDenseParams(neuron=params, weight=weight, delay=delay)

    def first(p: dict[str, Any]) -> jax.Array:
        both = layer(p, *(("in", "rec") if "w_rec" in p else ("in",))), layer(p, "out")

        def one(times: jax.Array) -> jax.Array:
            spikes = timed_spikes(times, dt=dt, num_steps=round(config.t_end / dt))
            return jl.nth_spike_time(jl.simulate(network, both, spikes)[1].output, 0, dt)

        return jax.vmap(one)(jnp.asarray(given["times"]))

    return first


def mean_loss(first: jax.Array) -> jax.Array:
    return jnp.where(jnp.isfinite(first), first, 0.0).sum() / len(first)


def beside_eventax(config: Config, name: str, dt: float) -> list[dict[str, Any]]:
    """Compare spikes and gradients of one network, by differences too, and time both."""
    given = problem(config, name)
    free = {key: jnp.asarray(x) for key, x in given.items() if key != "times"}
    first = jax.jit(ours(config, dt, given))
    gradient = jax.jit(jax.grad(lambda p: mean_loss(first(p))))
    with tempfile.TemporaryDirectory() as folder:
        server, theirs = eventax(config, given, Path(folder))
        contenders = {
            ("jaxlif", "forward"): timed(first, free),
            ("jaxlif", "gradient"): timed(gradient, free),
            ("eventax", "forward"): lambda: order(server, "forward"),
            ("eventax", "gradient"): lambda: order(server, "gradient"),
        }
        if "recurrent" in name:  # there eventax's events are so many that it would not be a fair race
            contenders = {}
        seconds = {key: 1e3 * x.median for key, x in interleave(contenders, config.rounds, at_least=0.0).items()}
        server.stdin.close()
        server.wait()
    found, exact = gradient(free), first(free)
    scale = max(float(jnp.abs(g).max()) for g in found.values())
    apart = max(float(np.abs(found[key] - theirs[key]).max()) for key in free) / scale
    same = np.array_equal(np.isfinite(exact), np.isfinite(theirs["first"]))
    times = np.abs(exact - theirs["first"])[np.isfinite(exact)].max() if same else np.inf
    rows = [
        claim(f"{name}: first spikes of outputs", float(np.isfinite(exact).sum())),
        claim(f"{name}: from those of eventax, at most", 1e6 * times, "ns", "<= 0.001"),
        claim(f"{name}: gradient from eventax's, of the largest", apart, "", "<= 1e-6"),
        claim(f"{name}: gradient from differences, of each", by_differences(config, first, free, found), "", "<= 1e-8"),
    ]
    for kind in ("forward", "gradient") if seconds else ():
        own, other = (seconds[library, kind] for library in ("jaxlif", "eventax"))
        rows += [claim(f"{name}: {kind} here", own, "ms"), claim(f"{name}: {kind} of eventax", other, "ms")]
        rows += [claim(f"{name}: {kind}, time of eventax over ours", other / own, "", ">= 1")]
    return rows


def eventax(config: Config, given: dict[str, Any], folder: Path) -> tuple[Any, dict[str, np.ndarray]]:
    """Start eventax on a network; return its process, which waits for orders, and what it found."""
    numbers = {key: getattr(config, key) for key in ("tau_m", "tau_syn", "v_reset", "t_end", "step")}
    events = sum(np.size(x) for key, x in given.items() if key[0] == "w") + config.num_in + config.hidden + config.out
    np.savez(folder / "in.npz", **given, **numbers, v_th=1.0, max_events=2 * events)
    command = [str(EVENTAX), str(HERE / "peer_exact.py"), str(folder / "in.npz"), str(folder / "out.npz")]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    if server.stdout.readline().strip() != "ready":
        raise SystemExit("eventax failed: its error is above")
    return server, dict(np.load(folder / "out.npz"))


def order(server: Any, kind: str) -> float:
    """Let eventax run once; return its seconds."""
    server.stdin.write(kind + "\n")
    return float(server.stdout.readline())


def by_differences(config: Config, first: Any, free: dict[str, Any], gradient: dict[str, Any]) -> float:
    """Return the largest error of the gradient by central differences, of each entry or a hundredth of the largest."""
    rng, errors = np.random.default_rng(config.seed + 1), []
    typical = 1e-2 * max(float(jnp.abs(g).max()) for g in gradient.values())
    for key in rng.choice(list(free), config.differences):
        place = tuple(rng.integers(n) for n in free[key].shape)

        def at(step: float, key: str = key, place: tuple[int, ...] = place) -> float:
            return float(mean_loss(first(free | {key: free[key].at[place].add(step)})))

        slopes = [(8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h) for h in (1e-3, 3e-4, 1e-4)]
        own = float(gradient[key][place])
        errors.append(min(abs(slope - own) for slope in slopes) / max(abs(own), typical))
    return max(errors)


def any_dt(config: Config) -> list[dict[str, Any]]:
    """Compare the first spikes of the network with delays at two steps."""
    given = problem(config, "with delays")
    free = {key: jnp.asarray(x) for key, x in given.items() if key != "times"}
    coarse, fine = (jax.jit(ours(config, dt, given))(free) for dt in (0.5, 0.05))
    apart = 1e6 * np.abs(coarse - fine)[np.isfinite(coarse)].max()
    return [claim("first spikes at dt = 0.5 and 0.05 ms, at most apart", apart, "ns", "<= 0.001")]


if __name__ == "__main__":
    with jax.enable_x64(True):
        run_script(main, Config(), QUICK, __doc__)
