"""jaxpike: ``unroll`` of ``Sequential(Dense, LIF)``, or of ``Sequential(Dense, Graph)`` with a recurrent ``Dense``.

``unroll`` hoists ``Dense`` over all time steps by itself. ``scan_unroll=1`` takes the place of its 8, which was chosen
on a GPU. Differentiated are the weights only, by ``eqx.partition``. Reset by subtraction, not detached; FastSigmoid of
slope 25: the defaults.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # last, so that this script does not hide its library

from importlib.metadata import version

import equinox as eqx
import jax
import jaxpike as jp
from jax_pass import array, passes
from serve import serve

SCAN_UNROLL = 1


def prepare(problem):
    neuron = recurrent(problem) if problem.recurrent else jp.LIF(tau=20.0)
    network = jp.Sequential(dense(array(problem, "weight")), neuron)
    weights, rest = eqx.partition(network, jax.tree.map(lambda leaf: eqx.is_array(leaf) and leaf.ndim == 2, network))
    return passes(problem, lambda w, x: jp.unroll(eqx.combine(w, rest), x, scan_unroll=SCAN_UNROLL)[0], weights)


def recurrent(problem):
    """Return neurons that feed themselves, one step later."""
    return jp.Graph(
        nodes={"hidden": jp.LIF(tau=20.0), "feedback": dense(array(problem, "recurrent"))},
        edges=[("input", "hidden"), ("hidden", "feedback"), ("feedback", "hidden")],
        output="hidden",
    )


def dense(weight):
    """Return a projection without bias; ``weight`` goes from row to column."""
    layer = jp.Dense(*weight.shape, key=jax.random.key(0), use_bias=False)
    return eqx.tree_at(lambda d: d.weight, layer, weight.T)


if __name__ == "__main__":
    serve(version("jaxpike"), prepare)
