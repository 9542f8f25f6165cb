"""What does jaxlif do on a GPU: is it right there, and what do its steps, layers, epochs, likelihood and networks cost?

Question: are spikes and gradients those of the CPU; how long is a step of a scan, launches included, and what does
``unroll`` change, and what one kernel for all steps; how do a layer and an epoch grow with batch and width, a sparse
network with its neurons; how long do the fit and the likelihood of a layer 5 cell take?

Method: each part of the list ``PARTS`` runs in a process of its own within its budget of seconds, and hands over every
number as soon as it is measured. What fails, does not fit into memory or into the budget is named under "could_not" in
the result, and the other numbers stay. Everything is float32. ``parity`` runs the cells of the contract suite
(``tests/test_contract.py``), every number of the output weighed in one loss, on both devices; products in full float32
on both, and once more as the GPU takes them by default. Times are medians of ``timing.py``, compilation left out;
``train`` is the difference between a long and a short run. A step forward is one of a call of ``simulate`` as users
make it, its look at the inputs on the host included. Networks are those of ``../large_network.py`` with 80 synapses a
neuron, at every size.

Command: python experiments/benchmarks/gpu.py (under fifteen minutes on a GPU; needs pip install 'jaxlif[cuda13,dev]',
and JAXLIF_DATA for the likelihood; writes results/gpu_<card>.json, anew after each part). With --only PART what is
measured takes the place of that part in the file of an earlier run on such a card. Without a GPU it refuses. --quick: a
smoke run under a minute on whatever there is, which writes quick_<card>.json into the folder --out, and nothing without
one.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent), str(HERE.parents[1] / "tests")]  # claims.py lies in experiments/

import jax
import jax.numpy as jnp
import numpy as np
import optax
from claims import RESULTS, claim, recording_path, table, write_claims
from timing import gradient, interleave, output_weights, timed

import jaxlif as jl
from jaxlif.networks import Dense, Fused, Recurrent, Sequential, init_dense, init_neurons, init_recurrent
from jaxlif.networks.fused import fused_scan
from jaxlif.simulation import scan_cell

Claims = list[dict[str, Any]]
Piece = tuple[str, Callable[[], Iterable[dict[str, Any]]]]  # what is measured, in words, and how

AGREE = "cells of the contract suite whose spikes are the CPU's, every one"


@dataclass(frozen=True)
class Config:
    """Every number of the benchmark."""

    cells: int | None = None  # of the contract suite; None for all
    neurons: tuple[int, ...] = (65_536, 1024, 1)  # largest first, as with layers: what takes longest is not what is cut
    unrolls: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    steps: int = 2000
    layers: tuple[tuple[int, int, int, int], ...] = tuple(  # steps, batch, width, unroll
        (500, batch, width, unroll)
        for width in (2048, 512, 128)
        for batch in (128, 16, 1)
        for unroll in ((16, 4, 1) if (batch, width) == (128, 512) else (1,))
    )
    kernels: tuple[tuple[int, int, int], ...] = ((500, 64, 1024), (500, 256, 1024), (500, 64, 128), (1301, 64, 36))
    epochs: tuple[tuple[int, int], ...] = ((16, 35), (64, 35), (256, 35), (64, 512), (256, 512))  # batch, width
    samples: int = 512
    sequence: int = 1301  # steps
    networks: tuple[int, ...] = (4000, 20_000, 100_000, 400_000)
    synapses: int = 80  # of a neuron
    chunk: int = 40_000_000  # neuron-steps in a call of a network
    train: tuple[float, float] = (0.0, 10_000.0)  # ms of the recording
    fit: bool = True
    rounds: int = 5


QUICK = Config(
    cells=2,
    neurons=(1, 32),
    unrolls=(1, 4),
    steps=100,
    layers=((20, 2, 16, 1), (20, 4, 32, 4)),
    kernels=((9, 2, 130),),
    epochs=((16, 8),),
    samples=32,
    sequence=40,
    networks=(400,),
    chunk=20_000,
    train=(0.0, 1000.0),
    fit=False,
    rounds=1,
)


# ---------------------------------------------------------------------------------------------------------------- parts


def parity(config: Config) -> Iterator[Piece]:
    """Compare every cell of the contract suite with the CPU."""
    import test_contract as contract

    kernels = {f"{n}, one kernel": fused(contract.CASES[n]) for n in ("lif", "adaptive", "resonant", "leaky")}
    for name, case in list((kernels | contract.CASES).items())[: config.cells]:
        yield name, partial(compare, contract, name, case, "highest")
        if multiplies(case):
            yield f"{name}, products by default", partial(compare, contract, f"{name}, default", case, "default")


def fused(case: Any) -> Any:
    """Return a case whose neuron a GPU takes through all steps in one kernel; the CPU's is its scan."""
    return replace(case, cell=Fused(case.cell))


def multiplies(case: Any) -> bool:
    """Say whether a cell has products of matrices, which a GPU takes in fewer digits by default."""
    program = str(jax.make_jaxpr(partial(jl.simulate, case.cell))(case.params, case.inputs))
    return "dot_general" in program or "conv_general" in program


def compare(contract: Any, name: str, case: Any, precision: str) -> Claims:
    plain = replace(case, cell=case.cell.neuron) if isinstance(case.cell, Fused) else case
    gradient_here, spikes_here = on_device(contract, case, jax.devices()[0], precision)
    gradient_there, spikes_there = on_device(contract, plain, jax.devices("cpu")[0], precision)
    rows = [claim(f"{name}: gradient, largest difference over its largest", apart(gradient_here, gradient_there))]
    if spikes_there:
        differ = sum(int((a != b).sum()) for a, b in zip(spikes_here, spikes_there, strict=True))
        of = sum(int(b.sum()) for b in spikes_there)
        target = "<= 0" if precision == "highest" else None
        rows.append(claim(f"{name}: of {of} spikes, steps that differ", differ, "", target))
    return rows


def on_device(contract: Any, case: Any, device: Any, precision: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the gradient of each parameter and input, and the spikes of a case, in single precision."""
    both = jax.device_put(contract.as_arrays((case.params, case.inputs), "float32"), device)

    def loss(leaves):
        outputs = jl.simulate(case.cell, *contract.with_floats(both, leaves))[1]
        return contract.loss(outputs), outputs

    with jax.default_device(device), jax.default_matmul_precision(precision):
        found, outputs = jax.device_get(jax.jit(jax.grad(loss, has_aux=True))(contract.floats(both)))
    named = jax.tree_util.tree_leaves_with_path(outputs)
    return found, [y for path, y in named if ".spikes" in jax.tree_util.keystr(path)]


def apart(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """Return the largest difference of two gradients, each parameter's over its largest component."""
    scales = [max(float(np.abs(b).max()), 1e-30) for b in wanted]
    return max(float(np.abs(a - b).max()) / s for a, b, s in zip(found, wanted, scales, strict=True))


def launch(config: Config) -> Iterator[Piece]:
    """Time one step of a scan: on a GPU its kernels' launches, until the neurons fill it."""
    for n in config.neurons:
        for unroll in config.unrolls:
            yield f"LIF, {n} neurons, unroll {unroll}", partial(one_step, config, n, unroll)


def one_step(config: Config, n: int, unroll: int) -> Claims:
    cell, params = jl.LIF(dt=0.1), jl.LIFParams(tau_m=jnp.linspace(8.0, 12.0, n))
    inputs = 300.0 + 100.0 * jax.random.normal(jax.random.key(0), (config.steps, n))
    forward = timed(partial(jl.simulate, cell, unroll=unroll), params, inputs)
    backward = timed(gradient(cell, unroll=unroll), params, inputs, output_weights(cell, params, inputs))
    found = interleave({"forward": forward, "with gradient": backward}, config.rounds)
    name = f"LIF, {n} neurons, unroll {unroll}"
    return [claim(f"{name}, {what}: a step", 1e6 * t.median / config.steps, "µs") for what, t in found.items()]


def layers(config: Config) -> Iterator[Piece]:
    """Time the gradient of a layer with respect to its weights."""
    for steps, batch, width, unroll in config.layers:
        for kind in ("feed-forward", *["one kernel"] * (unroll == 1), "recurrent"):
            name = f"layer of {width}, {kind}, batch {batch}" + f", unroll {unroll}" * (unroll > 1)
            yield name, partial(one_layer, config, name, steps, batch, width, kind, unroll)


def one_layer(config: Config, name: str, steps: int, batch: int, width: int, kind: str, unroll: int) -> Claims:
    keys = jax.random.split(jax.random.key(0), 4)
    neuron = jl.LIF(dt=1.0)
    hidden = {"feed-forward": neuron, "one kernel": Fused(neuron), "recurrent": Recurrent(neuron)}[kind]
    params = init_recurrent(keys[1], width) if kind == "recurrent" else init_neurons(width)
    network = Sequential((Dense(), hidden))
    inputs = jax.random.bernoulli(keys[2], 0.1, (batch, steps, width)).astype(jnp.float32)
    cotangents = jax.random.normal(keys[3], inputs.shape)

    @jax.jit
    def pass_(params, inputs, cotangents):
        def loss(params):
            spikes = jax.vmap(lambda x: jl.simulate(network, params, x, unroll=unroll)[1].output.spikes)(inputs)
            return jnp.mean(spikes * cotangents), jnp.mean(spikes)

        return jax.grad(loss, has_aux=True)(params)

    args = (init_dense(keys[0], width, width, gain=16.0, bias=False), params), inputs, cotangents
    run = pass_.lower(*args).compile()
    found = interleave({"pass": timed(run, *args)}, config.rounds)["pass"]
    return [
        claim(f"{name}: forward and gradient of {steps} steps", 1e3 * found.median, "ms"),
        claim(f"{name}: a neuron-step", 1e9 * found.median / (steps * batch * width), "ns"),
        claim(f"{name}: temporaries", run.memory_analysis().temp_size_in_bytes / 2**20, "MiB"),
        claim(f"{name}: spikes per neuron-step", 100.0 * float(run(*args)[1]), "%"),
    ]


def kernels(config: Config) -> Iterator[Piece]:
    """Time a neuron's loop over time as one kernel beside its scan; on a CPU the kernel is interpreted."""
    adaptive = jl.AdaptiveLIFParams(eta=(0.1,), tau_eta=(50.0,), gamma=(0.1,), tau_gamma=(50.0,))
    for steps, batch, n in config.kernels:
        plain = vars(init_neurons(n))
        for cell, params in (
            (jl.LIF(dt=1.0), jl.LIFParams(**plain)),
            (jl.AdaptiveLIF(dt=1.0), replace(adaptive, **plain)),
        ):
            name = f"{type(cell).__name__}, {steps} steps, batch {batch}, {n} neurons"
            yield name, partial(one_kernel, config, name, cell, params, (batch, steps, n))


def one_kernel(config: Config, name: str, cell: Any, params: Any, shape: tuple[int, ...]) -> Claims:
    inputs = 1.0 + 5.0 * jax.random.normal(jax.random.key(0), shape)  # they spike in some 5 % of the steps
    weights = jax.random.normal(jax.random.key(1), shape)
    runs = {"kernel": fused_scan, "scan": scan_cell}
    calls, found, rows = {}, {}, []
    for kind, run in runs.items():

        def _spikes(params: Any, inputs: Any, run: Any = run) -> Any:
            return jax.vmap(lambda x: run(cell, params, cell.init_state(params, x[0]), x)[1].spikes)(inputs)

        def _loss(params: Any, inputs: Any, spikes: Any = _spikes) -> Any:
            return jnp.sum(spikes(params, inputs) * weights)

        forward, backward = jax.jit(_spikes), jax.jit(jax.grad(_loss, argnums=(0, 1)))
        calls |= {f"{kind}, forward": (forward, params, inputs), f"{kind}, gradient": (backward, params, inputs)}
        found[kind] = jax.device_get((forward(params, inputs), jax.tree.leaves(backward(params, inputs))))
    times = interleave({what: timed(*call) for what, call in calls.items()}, config.rounds)
    rows = [claim(f"{name}, {what}", 1e3 * t.median, "ms") for what, t in times.items()]
    for what in ("forward", "gradient"):
        ratio = times[f"scan, {what}"].median / times[f"kernel, {what}"].median
        rows.append(claim(f"{name}, {what}: scan over kernel", ratio))
    (spikes, gradient_), (wanted, true) = found["kernel"], found["scan"]
    rows.append(
        claim(f"{name}: of {int(wanted.sum())} spikes, kernel and scan differ in", int((spikes != wanted).sum()))
    )
    return [*rows, claim(f"{name}: gradient, largest difference over its largest", apart(gradient_, true))]


def epochs(config: Config) -> Iterator[Piece]:
    """Time an epoch of ``train`` on a task of the shape of ``../ecg.py``."""
    for batch, width in config.epochs:
        yield f"epoch, batch {batch}, width {width}", partial(one_epoch, config, batch, width)


def one_epoch(config: Config, batch: int, width: int) -> Claims:
    import training_overhead as training

    shape = training.Config(samples=config.samples, num_steps=config.sequence, neurons=width, batch=batch)
    task, optimizer = training.ecg(shape), optax.adam(1e-2)

    def seconds(number: int) -> float:
        start = time.perf_counter()
        jax.block_until_ready(training.run_train(task, optimizer, number))
        return time.perf_counter() - start

    first, short, long = seconds(1), seconds(1), seconds(4)
    name = f"epoch of {config.samples} sequences, batch {batch}, width {width}"
    return [claim(name, (long - short) / 3.0, "s"), claim(f"{name}: first, with compilation", first, "s")]


def likelihood(config: Config) -> Iterator[Piece]:
    """Time the fit of a layer 5 cell, and its joint likelihood with the gradient."""
    if config.fit:
        yield "fit of the layer 5 cell", partial(whole_fit, config)
    yield "likelihood of the layer 5 cell", partial(joint_likelihood, config)


def joint_likelihood(config: Config) -> Iterator[dict[str, Any]]:
    value, slope, seconds, steps = evaluated(config, jax.devices()[0])
    yield claim(f"likelihood and gradient of {steps} steps, {jax.default_backend()}", seconds, "s")
    yield claim("likelihood and gradient, a step", 1e9 * seconds / steps, "ns")
    true, exact, seconds, _ = evaluated(config, jax.devices("cpu")[0])
    yield claim(f"likelihood and gradient of {steps} steps, on its host", seconds, "s")
    yield claim("likelihood, difference from the CPU over its value", abs(value / true - 1.0), "", "<= 1e-4")
    yield claim("likelihood, gradient, largest difference over its largest", apart([slope], [exact]))


def evaluated(config: Config, device: Any) -> tuple[float, np.ndarray, float, int]:
    """Return the loss, its gradient, the seconds of one evaluation and the number of steps."""
    from jaxlif.fitting.data import Data, with_spikes
    from jaxlif.fitting.joint_likelihood import JointLoss
    from jaxlif.fitting.ladder import full_start
    from jaxlif.fitting.lanes import cut_lanes, single_precision
    from jaxlif.fitting.optimise import gradient

    recording = jl.read_recording(recording_path("l5_pyramidal_frozen_noise.npz"))
    with jax.default_device(device), single_precision():
        data = with_spikes(Data.of(recording, jl.SpikeRule().find(recording)), config.train)
        start = full_start(data)
        loss = JointLoss(start, cut_lanes(data, start), data.dt)

        def _evaluated() -> tuple[float, np.ndarray]:
            value, score = loss(loss.start)
            return value, gradient(loss, loss.start, loss.pieces(loss.start, score))

        value, slope = _evaluated()
        return value, slope, interleave({"": timed(_evaluated)}, config.rounds)[""].median, data.spikes.size


def whole_fit(config: Config) -> Claims:
    recording = jl.read_recording(recording_path("l5_pyramidal_frozen_noise.npz"))
    start = time.perf_counter()
    fit = jl.fit_recording(recording, "gif", window=config.train)
    seconds = time.perf_counter() - start
    scores = [claim("gif: Md* at 4 ms", m) for m in [fit.scores["test"]["md_star"]] if m is not None]
    return [claim("gif: fit_recording, with compilation", seconds, "s"), *scores]


def networks(config: Config) -> Iterator[Piece]:
    """Time one second of sparse networks of excitatory and inhibitory neurons."""
    for n in config.networks:
        yield f"network of {n} neurons", partial(one_network, config, n)


def one_network(config: Config, n: int) -> Claims:
    import large_network

    start = time.perf_counter()
    chunk = max(10, min(1000, config.chunk // n))
    size = {"num_neurons": n, "probability": config.synapses / n}
    whole = large_network.Config(**size, part=0.1 * chunk, parts=config.rounds + 1)
    network = large_network.make(whole)
    built = time.perf_counter() - start
    parts, seconds = large_network.advance(whole, network)
    rate = np.mean([part.rates["E"] for part in parts[1:]])
    name = f"network of {n} neurons"
    return [
        claim(f"{name}: one second of it", 1e3 / (chunk * whole.dt) * seconds, "s"),
        claim(f"{name}: a step", 1e6 * seconds / chunk, "µs"),
        claim(f"{name}: mean rate", rate, "Hz"),
        claim(f"{name}: drawing its synapses", built, "s"),
    ]


#: What is measured and for how many seconds at most; together under fifteen minutes.
PARTS: dict[str, tuple[Callable[[Config], Iterator[Piece]], float]] = {
    "parity": (parity, 170.0),
    "launch": (launch, 110.0),
    "layers": (layers, 110.0),
    "kernels": (kernels, 60.0),
    "epochs": (epochs, 90.0),
    "likelihood": (likelihood, 250.0),
    "networks": (networks, 60.0),
}


# ------------------------------------------------------------------------------------------------ one part, one process


def work(pieces: Iterator[Piece], tell: Callable[[dict[str, Any]], None]) -> None:
    """Measure piece by piece and tell each claim, or why there is none: what fails must not take the rest along."""
    try:
        for name, measure in pieces:
            try:
                for row in measure():
                    tell(row)
            except (Exception, SystemExit) as error:
                tell({"could_not": reason(name, error)})
    except (Exception, SystemExit) as error:
        tell({"could_not": reason("the list of what to measure", error)})


def reason(name: str, error: BaseException) -> str:
    lines = str(error).splitlines() or [""]
    return f"{name}: {type(error).__name__}: {lines[0][:200]}"


def run_part(name: str, quick: bool) -> tuple[Claims, list[str]]:
    """Run a part in a process of its own; return its claims, and what it could not do."""
    budget = PARTS[name][1]
    command = [sys.executable, __file__, "--part", name, *["--quick"] * quick]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    stopped = ""
    try:
        told, _ = process.communicate(timeout=budget)
    except subprocess.TimeoutExpired:
        process.kill()
        told, _ = process.communicate()
        stopped = f"stopped after its {budget:g} s"
    if process.returncode and not stopped:
        stopped = f"ended with exit status {process.returncode}"
    return sorted_out(name, told, stopped)


def sorted_out(name: str, told: str, stopped: str) -> tuple[Claims, list[str]]:
    """Return the claims of a part and what it could not do from the lines that it printed; a cut last line is none."""
    whole = [json.loads(line) for line in told.splitlines(keepends=True) if line.endswith("\n")]
    claims = [row for row in whole if "could_not" not in row]
    last = f" after {claims[-1]['metric']!r}" if claims else ""
    missing = [f"{name}: {row['could_not']}" for row in whole if "could_not" in row]
    return claims, missing + ([f"{name}: {stopped}{last}"] if stopped else [])


def main(quick: bool, out: Path | None, parts: list[str]) -> None:
    probe = "import jax; d = jax.devices()[0]; print(d.platform, d.device_kind, sep='|')"
    answer = subprocess.run([sys.executable, "-c", probe], stdout=subprocess.PIPE, text=True, check=True).stdout
    platform, card = answer.strip().split("|")
    if platform == "cpu" and not quick:
        raise SystemExit("no GPU: JAX sees the CPU alone (pip install 'jaxlif[cuda13]'); --quick runs on the CPU")
    folder, name = (
        out or (None if quick else RESULTS),
        f"{'quick' if quick else 'gpu'}_{'_'.join(card.lower().split())}",
    )
    claims, could_not = ([], []) if folder is None or set(parts) == set(PARTS) else earlier(folder / f"{name}.json")
    for part in parts:
        print(f"{part}: {PARTS[part][1]:g} s at most", file=sys.stderr, flush=True)
        claims, could_not = replaced(part, claims, could_not, *run_part(part, quick))
        if folder:
            command = "python experiments/benchmarks/gpu.py" + " --quick" * quick
            write_claims(name, claims, folder=folder, command=command, could_not=could_not)
    print(table(claims))
    print("\n".join(f"could not: {line}" for line in could_not))


def earlier(path: Path) -> tuple[Claims, list[str]]:
    """Return what an earlier run on such a card measured, and what it could not."""
    record = json.loads(path.read_text()) if path.exists() else {"claims": []}
    return record["claims"], record.get("could_not", [])


def replaced(
    part: str, claims: Claims, could_not: list[str], rows: Claims, missing: list[str]
) -> tuple[Claims, list[str]]:
    """Put what a part has measured in the place of what it measured before, and sum up the comparison of spikes."""
    new = {row["metric"] for row in rows}
    claims = [row for row in claims if row["metric"] not in new | {AGREE}] + rows
    equal = [row["reached"] for row in claims if "steps that differ" in row["metric"] and row["target"]]
    summary = [claim(AGREE, 100.0 * float(np.mean(equal)), "%", ">= 100")] if equal else []
    return claims + summary, [line for line in could_not if not line.startswith(f"{part}: ")] + missing


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run under a minute, on a CPU too")
    parser.add_argument("--out", type=Path, help="folder of the result; without it a smoke run writes nothing")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part only; may be given again")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part:
        work(PARTS[asked.part][0](QUICK if asked.quick else Config()), lambda row: print(json.dumps(row), flush=True))
    else:
        main(asked.quick, asked.out, asked.only or list(PARTS))
