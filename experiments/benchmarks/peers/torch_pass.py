"""What the three PyTorch libraries share: tensors, threads, and one pass with its backward."""

import os
from collections.abc import Callable

import torch
from serve import Pass, Problem

torch.set_num_threads(os.cpu_count() or 1)


def tensor(problem: Problem, name: str) -> torch.Tensor:
    """Read one array."""
    shape = torch.Size(problem.shapes[name])
    return torch.from_file(problem.path(name), size=shape.numel(), dtype=torch.float32).reshape(shape).clone()


def linear(weight: torch.Tensor) -> torch.nn.Linear:
    """Return a projection without bias; ``weight`` goes from row to column."""
    layer = torch.nn.Linear(*weight.shape, bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight.T)
    return layer


def passes(
    problem: Problem, forward: Callable[[torch.Tensor], torch.Tensor], weights: list[torch.Tensor]
) -> tuple[Pass, Callable[[], float]]:
    """Return the pass and the firing rate of a layer that maps inputs [T, B, N_in] to spikes [T, B, N_out]."""
    inputs, cotangents = tensor(problem, "inputs"), tensor(problem, "cotangents")

    def run() -> None:
        for weight in weights:
            weight.grad = None
        (forward(inputs) * cotangents).mean().backward()

    def rate() -> float:
        if not all(float(weight.grad.abs().sum()) > 0.0 for weight in weights):
            raise SystemExit("a gradient is zero or not a number")
        with torch.no_grad():
            return float(forward(inputs).mean())

    return run, rate
