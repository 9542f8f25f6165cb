"""snnTorch: ``RLeaky`` with all-to-all recurrence and ``Leaky`` without reset, in a loop over steps, as it is taught.

Kinder than its tutorials: both projections are taken out of the loop, one ``Linear`` over all steps each. ``beta`` of
the neurons and of the readout is a parameter per neuron (``learn_beta``). Reset by subtraction (the default, one step
late, detached), ``fast_sigmoid`` of slope 25.
"""

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # last, so that this script does not hide its library

import snntorch
import torch
from epoch_problem import BETA, BETA_READOUT, LEARNING_RATE, NUM_HIDDEN, NUM_IN, NUM_OUT, SKIP, serve_epochs
from snntorch import surrogate

torch.set_num_threads(os.cpu_count() or 1)

#: The input is not multiplied by 1 - beta here, so the weights are.
SCALE, SCALE_READOUT = 1.0 - BETA, 10.0 * (1.0 - BETA_READOUT)


class Network(torch.nn.Module):
    """Projection, recurrent neurons, projection, leaky readout."""

    def __init__(self, problem):
        super().__init__()
        self.projection = linear(NUM_IN, NUM_HIDDEN, SCALE * array(problem, "weight"))
        spike = surrogate.fast_sigmoid(slope=25)
        hidden = torch.full((NUM_HIDDEN,), BETA)
        self.hidden = snntorch.RLeaky(hidden, spike_grad=spike, linear_features=NUM_HIDDEN, learn_beta=True)
        self.hidden.recurrent = linear(NUM_HIDDEN, NUM_HIDDEN, SCALE * array(problem, "recurrent"), bias=False)
        self.readout = linear(NUM_HIDDEN, NUM_OUT, SCALE_READOUT * array(problem, "readout"))
        self.leaky = snntorch.Leaky(torch.full((NUM_OUT,), BETA_READOUT), learn_beta=True, reset_mechanism="none")

    def forward(self, inputs):
        """Return the logits [T, B, 6] of inputs [T, B, 4]."""
        spk, mem = self.hidden.reset_mem()
        spikes, logits = [], []
        for current in self.projection(inputs):
            spk, mem = self.hidden(current, spk, mem)
            spikes.append(spk)
        voltage = self.leaky.reset_mem()
        for current in self.readout(torch.stack(spikes)):
            _, voltage = self.leaky(current, voltage)
            logits.append(voltage)
        return torch.stack(logits)


def prepare(problem):
    inputs, labels = array(problem, "inputs"), array(problem, "labels").long()

    def epoch():
        network = Network(problem)
        optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
        losses = []
        for x, y in zip(inputs, labels, strict=True):
            optimizer.zero_grad()
            logits = network(x.transpose(0, 1).contiguous())[SKIP:]
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.T[SKIP:].flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        return sum(losses) / len(losses)

    return epoch


def array(problem, name):
    """Read one array."""
    shape = torch.Size(problem.shapes[name])
    return torch.from_file(problem.path(name), size=shape.numel(), dtype=torch.float32).reshape(shape).clone()


def linear(num_in, num_out, weight, bias=True):
    """Return a projection; ``weight`` goes from row to column."""
    layer = torch.nn.Linear(num_in, num_out, bias=bias)
    with torch.no_grad():
        layer.weight.copy_(weight.T)
        if bias:
            layer.bias.zero_()
    return layer


if __name__ == "__main__":
    serve_epochs(snntorch.__version__, prepare)
