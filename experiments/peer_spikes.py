"""Let snnTorch and Norse spike for a few small cases, for the tests of ``jaxlif.interop.conventions``.

Method: a peer's own neurons run on the stored inputs, in the peer's environment; spikes, recorded voltages and the
gradient of a fixed weighted sum of both with respect to the input are stored in float32. In the cases named "tie" all
numbers are small multiples of powers of two, and some voltages lie exactly on the threshold.

Command, with each peer's own Python (built by experiments/benchmarks/peers.sh and experiments/peers_nir.sh):
    .cache/peers/snntorch_nir/bin/python experiments/peer_spikes.py snntorch
    .cache/peers/norse/bin/python experiments/peer_spikes.py norse
"""

import sys
from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "data"
STEPS, NEURONS = 60, 4
BETA = [0.5, 0.8, 0.9, 0.95]
TAU_MEM_INV = [400.0, 200.0, 100.0, 50.0]  # 1/s


def drive() -> np.ndarray:
    """Return inputs [T, N] around the thresholds of all neurons, of both signs."""
    return np.random.default_rng(0).normal(0.35, 0.8, (STEPS, NEURONS)).astype(np.float32)


def ties() -> np.ndarray:
    """Return inputs of whole halves: with a decay of one half, voltages of exactly 1 are common."""
    return np.random.default_rng(1).integers(-1, 4, (STEPS, NEURONS)).astype(np.float32) / 2


def weight() -> np.ndarray:
    """Return a recurrent weight [N, N], from row to column."""
    return np.random.default_rng(2).normal(0.0, 0.5, (NEURONS, NEURONS)).astype(np.float32)


def measure(spikes, v):
    """Weigh every spike and voltage by a number of its own."""
    places = torch.arange(spikes.numel(), dtype=torch.float32).reshape(spikes.shape)
    return (torch.cos(places) * spikes).sum() + 0.1 * (torch.sin(places) * v).sum()


def record(inputs: np.ndarray, run) -> dict[str, np.ndarray]:
    """Run ``run(x) -> (spikes, v)`` over the inputs; return them with the outputs and the gradient."""
    x = torch.tensor(inputs, requires_grad=True)
    spikes, v = run(x)
    (gradient,) = torch.autograd.grad(measure(spikes, v), x)
    arrays = {"inputs": x, "spikes": spikes, "v": v, "gradient": gradient}
    return {name: a.detach().numpy().astype(np.float32) for name, a in arrays.items()}


def over_time(step, x):
    """Stack what ``step(x_n, state) -> (spikes, v, state)`` returns."""
    state, spikes, voltages = None, [], []
    for one in x:
        s, v, state = step(one, state)
        spikes.append(s)
        voltages.append(v)
    return torch.stack(spikes), torch.stack(voltages)


def snntorch_cases() -> dict[str, dict[str, np.ndarray]]:
    import snntorch

    def leaky(beta, reset, delay):
        def run(x):
            cell = snntorch.Leaky(beta=torch.tensor(beta), reset_mechanism=reset, reset_delay=delay)

            def step(one, mem):
                spikes, mem = cell(one, cell.init_leaky() if mem is None else mem)
                return spikes, mem, mem

            return over_time(step, x)

        return run

    def recurrent(x):
        cell = snntorch.RLeaky(beta=torch.tensor(BETA), linear_features=NEURONS, reset_mechanism="subtract")
        cell.recurrent.weight.data = torch.tensor(weight().T.copy())
        cell.recurrent.bias.data.zero_()

        def step(one, state):
            spikes, mem = cell(one, *(cell.init_rleaky() if state is None else state))
            return spikes, mem, (spikes, mem)

        return over_time(step, x)

    kinds = [*product(("subtract", "zero"), (True, False)), ("none", True)]
    cases = {f"leaky {reset} {delay}": record(drive(), leaky(BETA, reset, delay)) for reset, delay in kinds}
    cases |= {f"tie {reset} {delay}": record(ties(), leaky(0.5, reset, delay)) for reset, delay in kinds}
    return cases | {"recurrent": record(drive(), recurrent)}


def norse_cases() -> dict[str, dict[str, np.ndarray]]:
    import norse.torch as norse

    def run_cell(cell):
        def step(one, state):
            spikes, state = cell(one, state)
            return spikes, state.v, state

        return lambda x: over_time(step, x)

    def box(tau_mem_inv):
        return run_cell(norse.LIFBoxCell(norse.LIFBoxParameters(tau_mem_inv=torch.tensor(tau_mem_inv))))

    def lif(tau_mem_inv, tau_syn_inv):
        parameters = norse.LIFParameters(tau_mem_inv=torch.tensor(tau_mem_inv), tau_syn_inv=torch.tensor(tau_syn_inv))
        return run_cell(norse.LIFCell(parameters))

    def recurrent():
        parameters = norse.LIFParameters(tau_mem_inv=torch.tensor(TAU_MEM_INV))
        cell = norse.LIFRecurrentCell(NEURONS, NEURONS, parameters, autapses=True)
        cell.input_weights.data = torch.eye(NEURONS)
        cell.recurrent_weights.data = torch.tensor(weight().T.copy())
        return run_cell(cell)

    return {
        "LIFBoxCell": record(4.0 * drive(), box(TAU_MEM_INV)),
        "LIFCell": record(drive(), lif(TAU_MEM_INV, 200.0)),
        "tie LIFBoxCell": record(2.0 * ties(), box(500.0)),
        "tie LIFCell": record(2.0 * ties(), lif(500.0, 1000.0)),
        "recurrent": record(drive(), recurrent()),
    }


def main(peer: str) -> None:
    torch.manual_seed(0)
    cases = {"snntorch": snntorch_cases, "norse": norse_cases}[peer]()
    arrays = {f"{case}/{name}": a for case, parts in cases.items() for name, a in parts.items()}
    np.savez_compressed(FOLDER / f"peer_{peer}.npz", weight=weight(), version=version(peer), **arrays)
    for case, parts in cases.items():
        on = int((parts["v"] == 1.0).sum())
        print(f"{peer} {version(peer)} {case}: {int(parts['spikes'].sum())} spikes, {on} voltages on the threshold")


if __name__ == "__main__":
    main(sys.argv[1])
