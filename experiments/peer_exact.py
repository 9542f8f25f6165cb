"""Run a two-layer network with exact gradients in eventax, for ``exact_networks.py``, which starts it.

    .cache/peers/eventax/bin/python experiments/peer_exact.py IN.npz OUT.npz

IN.npz has ``times`` [B, num_in] of the inputs, ms; the weights ``w_in``, ``w_out`` and perhaps ``w_rec``; delays
``d_in``, ``d_out`` and ``d_rec``, ms, of all weights or none; numbers ``tau_m``, ``tau_syn``, ``v_th``, ``v_reset``,
``t_end``; ``step``, ms, that of the solver, and ``max_events``. OUT.npz gets ``first`` [B, O], the first spikes of the
outputs, and for each weight and delay the gradient of the mean over the batch of their sum. Then every line of the
standard input, "forward" or "gradient", is answered by the seconds of one pass.
"""

import sys
import time

import jax

jax.config.update("jax_enable_x64", True)
import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optimistix
from eventax.evnn import EvNN
from eventax.neuron_models import LIF

BLOCKS = ("in", "out", "rec")


def places(hidden: int, out: int, num_in: int) -> dict[str, tuple[slice, slice]]:
    """Return where blocks stand in eventax's matrix, whose rows are neurons, then inputs."""
    n = hidden + out
    return {
        "in": (slice(n, n + num_in), slice(hidden)),
        "out": (slice(hidden), slice(hidden, n)),
        "rec": (slice(hidden), slice(hidden)),
    }


def main(source: str, target: str) -> None:
    """Answer with a network's first spikes, its gradient, and then with times."""
    p = dict(np.load(source))
    (num_in, hidden), out = p["w_in"].shape, p["w_out"].shape[1]
    where, shape = places(hidden, out, num_in), (hidden + out + num_in, hidden + out)
    matrix = {"w": np.zeros(shape), "d": np.zeros(shape), "mask": np.zeros(shape)}
    present = [name for name in BLOCKS if f"w_{name}" in p]
    for name in present:
        matrix["w"][where[name]], matrix["mask"][where[name]] = p[f"w_{name}"], 1.0
        matrix["d"][where[name]] = p.get(f"d_{name}", 0.0)
    delays = jnp.asarray(matrix["d"]) if "d_in" in p else None
    net = EvNN(
        neuron_model=LIF,
        n_neurons=hidden + out,
        max_solver_time=float(p["t_end"]),
        in_size=num_in,
        key=jax.random.key(0),
        wmask=jnp.asarray(matrix["mask"]),
        init_delays=delays,
        output_neurons=jnp.arange(hidden + out) >= hidden,
        input_neurons=jnp.arange(hidden + out) < hidden,
        max_event_steps=int(p["max_events"]),
        solver_stepsize=float(p["step"]),
        solver=diffrax.Tsit5(),
        root_finder=optimistix.Newton(1e-13, 1e-13, optimistix.rms_norm),
        dtype=jnp.float64,
        init_weights=jnp.asarray(matrix["w"]),
        init_bias=0.0,
        thresh=float(p["v_th"]),
        vreset=float(p["v_reset"]),
        tmem=float(p["tau_m"]),
        tsyn=float(p["tau_syn"]),
    )
    times = jnp.asarray(p["times"])[..., None]

    @jax.jit
    def first(parts):
        changed = eqx.tree_at(lambda net: net.neuron_model.weights, net, parts["w"])
        if "d" in parts:
            changed = eqx.tree_at(lambda net: net.delays, changed, parts["d"])
        return jax.vmap(changed.ttfs)(times)

    def loss(parts):
        found = first(parts)
        return jnp.where(jnp.isfinite(found), found, 0.0).sum() / len(times)

    parts = {"w": jnp.asarray(matrix["w"])} | ({} if delays is None else {"d": delays})
    passes = {"forward": first, "gradient": jax.jit(jax.grad(loss))}
    gradient = passes["gradient"](parts)
    found = {f"{kind}_{name}": np.asarray(g)[where[name]] for kind, g in gradient.items() for name in present}
    np.savez(target, first=np.asarray(first(parts)), **found)
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        jax.block_until_ready(passes[line.strip()](parts))
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
