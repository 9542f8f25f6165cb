"""When is the exact gradient through spike times the slope that an optimiser needs, and when is a surrogate's?

Question: where neurons are silent, does a surrogate, or a direction for silent outputs, mend the exact gradient, which
does not see spikes appear and vanish? And where they are not, is the exact one better?

Method: Yin-Yang with 30 hidden neurons, the mean loss of first spikes over 32 samples, all weights; at the start from
weak weights and after training with Adam. ``jl.audit_gradient`` compares gradients with the slope of the loss smoothed
over noise of 10 % of the weights. Compared are the exact gradient and that with a surrogate (SuperSpike) in the hidden
layer, of the loss with a direction for silent outputs (``late`` = 5 ms) and without. The cosine of a gradient of 0 is
given as 0.

Command: python experiments/exact_audit.py (three minutes on two cores; needs JAXLIF_DATA, see data.md; --quick: a smoke
run that writes nothing)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from claims import claim, spiking_path, table, write_claims
from command_line import run_script

import jaxlif as jl
from jaxlif.networks import (
    PreciseDense,
    Sequential,
    cross_entropy,
    first_spike_logits,
    init_neurons,
    init_precise,
    timed_spikes,
)


@dataclass(frozen=True)
class Config:
    """Every number of the experiment."""

    audited: int = 32  # samples
    pairs: int = 2048
    noise: float = 0.1
    late: float = 5.0  # ms
    updates: int = 400
    dt: float = 2.5  # ms
    num_steps: int = 8
    gains: tuple[float, float] = (1.5, 2.0)
    seed: int = 0


QUICK = Config(audited=2, pairs=8, updates=2)
STAGES = "weak start", "trained"


def main(config: Config, write: bool) -> None:
    rows = []
    for stage in STAGES:
        found = audit(config, stage)
        print(table(found), flush=True)
        rows += found
        if write:
            write_claims("exact_audit", rows)


@dataclass(frozen=True)
class Batched:
    """A cell for a batch: states and inputs [B, ...], parameters shared."""

    cell: Any

    def init_state(self, params: Any, x: Any) -> Any:
        """Return the state of every sample."""
        return jax.vmap(self.cell.init_state, (None, 0))(params, x)

    def step(self, params: Any, state: Any, x: Any) -> tuple[Any, Any]:
        """Advance every sample."""
        return jax.vmap(self.cell.step, (None, 0, 0))(params, state, x)


def yin_yang_network(config: Config, surrogate: Any = None) -> Sequential:
    hidden, plain = (
        PreciseDense(jl.PreciseSynaptic(jl.PreciseLIF(dt=config.dt, surrogate=s), jl.ExponentialCurrent()))
        for s in (surrogate, None)
    )
    return Sequential((hidden, plain))


def batch_inputs(config: Config, x: np.ndarray) -> Any:
    """Return spikes [B, T, 5] of positions [B, 4], each and its mirror image as a time, and a first spike."""
    times = 0.5 + 9.0 * jnp.concatenate([jnp.zeros((len(x), 1)), x], axis=1)
    return jax.vmap(lambda t: timed_spikes(t, dt=config.dt, num_steps=config.num_steps))(times)


def loss_of(config: Config, labels: Any, late: float) -> Callable[[Any], jax.Array]:
    """Return the loss of outputs [T, B, ...]."""

    def loss(output: Any) -> jax.Array:
        z = jax.vmap(lambda y: first_spike_logits(y, 1.0, dt=config.dt, tau=1.0, late=late), 1)(output.output)
        return cross_entropy(z, labels)

    return loss


def trained(config: Config, data: Any, stage: str) -> Any:
    """Return weak weights, or what training with the exact gradient makes of them."""
    keys = jax.random.split(jax.random.key(config.seed), 2)
    sizes, cell = ((5, 30), (30, 3)), Batched(yin_yang_network(config))
    params = tuple(
        init_precise(key, *size, gain=gain, neuron=init_neurons(size[1], tau_m=10.0, t_ref=config.dt))
        for key, size, gain in zip(keys, sizes, config.gains, strict=True)
    )
    if stage == "weak start":
        return params
    order = np.random.default_rng(config.seed).integers(len(data["train_x"]), size=(config.updates, 100))

    def loss(params: Any, batch: Any) -> jax.Array:
        spikes = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), batch_inputs(config, batch[0]))
        return loss_of(config, batch[1], config.late)(jl.simulate(cell, params, spikes)[1])

    batches = data["train_x"][order], data["train_y"][order]
    adam = optax.adam(1e-2)
    return jl.fit(loss, params, {"*.weight": jl.REAL}, optimizer=adam, num_steps=config.updates, batches=batches).params


def audit(config: Config, stage: str) -> list[dict[str, Any]]:
    """Compare the exact gradient and that with a surrogate with the slope of the smoothed loss, for both losses."""
    data = dict(np.load(spiking_path("yin_yang.npz"), allow_pickle=False))
    params = trained(config, data, stage)
    x, labels = (data[f"validation_{name}"][: config.audited] for name in "xy")
    inputs = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), batch_inputs(config, x))
    exact, soft = (Batched(yin_yang_network(config, s)) for s in (None, jl.SuperSpike()))
    _, output = jl.simulate(exact, params, inputs)
    silent = [100.0 * float((y.spikes.sum(axis=0) == 0.0).mean()) for y in output.layers]
    names = ("hidden neurons", "outputs")
    rows = [claim(f"{stage}: silent {name}", n, "%") for name, n in zip(names, silent, strict=True)]
    for label, late in (("a direction for silent outputs", config.late), ("none", 0.0)):
        loss = loss_of(config, labels, late)
        found = jl.audit_gradient(
            loss,
            exact,
            params,
            inputs,
            key=jax.random.key(config.seed + 1),
            names=("*.weight",),
            noise=config.noise,
            samples=config.pairs,
            others={"surrogate": lambda p, loss=loss: loss(jl.simulate(soft, p, inputs)[1])},
        )
        gradients = {"exact": found.cosines["cell"], "surrogate": found.cosines["surrogate"]}
        rows += [claim(f"{stage}, {label}: cosine, {rule}", np.nan_to_num(x)) for rule, x in gradients.items()]
    return rows


if __name__ == "__main__":
    with jax.enable_x64(True):
        run_script(main, Config(), QUICK, __doc__)
