"""Let NeuroBench count the operations of a small network, for the test of ``jaxlif.networks.summary``.

Method: convolution, full and recurrent layers of snnTorch's neurons, some weights 0, on inputs that are binary in half
of the steps. All numbers are small multiples of powers of two: spikes are the same in any order of summation.

Command, in an environment with ``pip install torch neurobench``: python experiments/peer_counts.py
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np

FILE = Path(__file__).resolve().parent.parent / "tests" / "data" / "peer_neurobench.json"
BATCH, STEPS, CHANNELS, PLACES = 3, 10, 2, 8
SHAPES = {"conv": (2, 3, 3), "first": (12, 5), "recurrent": (5, 5), "last": (5, 2)}  # from inputs to outputs


def arrays() -> dict[str, np.ndarray]:
    """Return the weights, a quarter of them 0, and the inputs [B, T, C, L]."""
    rng = np.random.default_rng(0)
    found = {
        name: (rng.integers(-4, 9, n) * (rng.random(n) > 0.25) / 8).astype(np.float32) for name, n in SHAPES.items()
    }
    x = rng.integers(-1, 4, (BATCH, STEPS, CHANNELS, PLACES)).astype(np.float32) / 2
    x[:, ::2] = rng.integers(0, 2, x[:, ::2].shape)
    return found | {"inputs": x}


def main() -> None:
    import snntorch
    import torch
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.static import ConnectionSparsity
    from neurobench.metrics.workload import ActivationSparsity, SynapticOperations
    from neurobench.models import SNNTorchModel

    given = {name: torch.tensor(x) for name, x in arrays().items()}
    options = {"beta": 0.5, "init_hidden": True}
    conv = torch.nn.Conv1d(2, 3, 3, stride=2, padding=1, bias=False)
    first, last = torch.nn.Linear(12, 5, bias=False), torch.nn.Linear(5, 2, bias=False)
    loop = snntorch.RLeaky(**options, linear_features=5)
    conv.weight.data, first.weight.data = given["conv"].transpose(0, 1), given["first"].T
    last.weight.data, loop.recurrent.weight.data = given["last"].T, given["recurrent"].T
    loop.recurrent.bias.data.zero_()
    hidden = conv, snntorch.Leaky(**options), torch.nn.Flatten(), first, loop
    net = torch.nn.Sequential(*hidden, last, snntorch.Leaky(**options, output=True))
    batch = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(given["inputs"], torch.zeros(BATCH)), batch_size=BATCH
    )
    metrics = [[ConnectionSparsity], [ActivationSparsity, SynapticOperations]]
    counted = Benchmark(SNNTorchModel(net), batch, [], [], metrics).run(quiet=True)
    versions = {name: version(name) for name in ("neurobench", "snntorch", "torch")}
    FILE.write_text(json.dumps({"versions": versions, **counted}, indent=2) + "\n")
    print(FILE.read_text())


if __name__ == "__main__":
    main()
