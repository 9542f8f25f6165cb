"""Networks to and from NIR, the Neuromorphic Intermediate Representation, for snnTorch, Norse, Lava, SpiNNaker 2, ...

NIR holds differential equations, not steps: dt and the surrogate are no part of a graph. What cannot be held exactly is
refused by name, never approximated. Times are written in seconds, everything else in the network's own units, all in
double precision; the graph's metadata says so. What NIR leaves to whoever runs a graph is here as everywhere in jaxlif:

* a signal is held over its step, a spike being 1; a node without memory and the next neurons act in the same step;
* every neuron is integrated exactly, starts at v_leak (one without leak at 0), and spikes at v >= v_th (NIR: v > v_th);
* a loop waits one step: where it is entered at one node, at what leads back to that node; where it is entered at
  several, past its neurons. Before the first step no neuron has spiked, but a bias in the loop acts from the start.

Graphs of snnTorch and Norse mean Euler steps: ``integration = "euler"`` reads them so. In graphs of Sinabs a neuron
without leak adds r times its input in a step: read them with dt = 1000 ms, for r is a slope per second. snnTorch 1.0
itself takes steps of 0.1 ms whatever the graph says, and one time constant and threshold for a layer; Norse 1.1 takes
R = 1.
"""

from typing import Any

from jaxlif.checks import check_params, number, require_positive
from jaxlif.interop.nir_read import MS, Reader
from jaxlif.interop.nir_wires import wires
from jaxlif.interop.nir_write import Parts, parts_of, write_graph
from jaxlif.networks.layers import Sequential, _dt
from jaxlif.neurons.cell import check_cell
from jaxlif.surrogate import SuperSpike, Surrogate


def to_nir(network: Any, params: Any, input_shape: tuple[int, ...], dt: float | None = None) -> Any:
    r"""Write a network as a NIR graph, one node for each layer.

    ===================================  ==========================================================
    layer                                node
    ===================================  ==========================================================
    Dense                                Affine, or Linear without a bias
    Conv1D, Conv2D, SumPool              Conv1d, Conv2d, SumPool2d
    Flatten, Delayed                     Flatten, Delay
    LIF, LeakyIntegrator                 LIF, LI
    what :func:`from_nir` reads besides  CubaLIF, CubaLI, IF, I, Scale, Threshold
    Recurrent, DelayedRecurrent          a graph of its own: LIF -> (Delay ->) Linear -> LIF
    Feedback, Graph                      a graph of its own
    Sequential                           its layers
    ===================================  ==========================================================

    Args:
        network: a :class:`Sequential`, or a single layer.
        params: its parameters; a network in normalised units stays in them.
        input_shape: shape of one time slice of the input.
        dt: step, ms, for the metadata; the network's own by default.

    Returns:
        A ``nir.NIRGraph``; ``nir.write(path, graph)`` stores it.

    Raises:
        ValueError: for what NIR cannot express, naming layer and field: a refractory period, ``reset = "subtract"``,
            a delay spread over lags, any other layer (adaptive neurons, synapses, MaxPool, Normalise, ...), padding
            that is not the same on both sides; or for params that break a rule.
        ImportError: without the package ``nir``.

    Example:
        >>> import jax, jaxlif as jl
        >>> from jaxlif.networks import Dense, init_dense
        >>> network = Sequential((Dense(), jl.LIF(dt=1.0)))
        >>> params = (init_dense(jax.random.key(0), 4, 3), jl.LIFParams(t_ref=0.0).normalised())
        >>> graph = to_nir(network, params, (4,))
        >>> [type(node).__name__ for node in graph.nodes.values()]
        ['Input', 'Affine', 'LIF', 'Output']

    Source: Pedersen et al. 2024, doi:10.1038/s41467-024-52259-9.
    """
    nir = _nir()
    if not isinstance(input_shape, tuple | list):
        raise ValueError(f"input_shape = {input_shape!r}: input_shape must be a tuple, such as (4,)")
    check_params(params)
    check_cell(network, params)
    step = _step(network, dt)
    parts = parts_of(network, params) or Parts((network,), (params,), ((-1, 0),))
    return write_graph(nir, parts, tuple(input_shape), _metadata(step))


def _step(network: Any, dt: float | None) -> float | None:
    own = _dt(network)
    if dt is not None and own is not None and dt != own:
        raise ValueError(f"dt = {dt:g} ms: dt must be the network's, which is {own:g} ms")
    return own if dt is None else dt


def _metadata(dt: float | None) -> dict[str, Any]:
    facts = {"source": "jaxlif", "time_unit": "s", "reset": "value", "threshold": "v >= v_threshold"}
    return facts | ({} if dt is None else {"dt": dt / MS})


def from_nir(
    graph: Any,
    dt: float | None = None,
    *,
    surrogate: Surrogate | None = None,
    reset: str = "value",
    integration: str = "exact",
) -> tuple[Sequential, tuple]:
    r"""Read a NIR graph as a network, for any step.

    A chain becomes its layers, neurons that drive themselves :class:`Recurrent`, :class:`DelayedRecurrent` or
    :class:`Feedback`; a graph with branches, or with other loops, becomes one :class:`Graph`.

    Args:
        graph: a ``nir.NIRGraph``, such as ``nir.read(path)``, with graphs within it or not.
        dt: step, ms; that in the graph's metadata by default.
        surrogate: pseudo-derivative of all spikes, SuperSpike by default: a graph has none.
        reset: "value", which is NIR's, or "subtract", which takes off v_threshold - v_reset: a graph trained with it
            does not say so.
        integration: "exact", or "euler" for a graph whose time constants mean Euler steps of dt: each becomes
            :math:`-dt / \ln(1 - dt/\tau)`, with which an exact step does the same, and a CubaLIF becomes an LI, which
            acts in the same step, and a LIF.

    Returns:
        The network and its parameters, in JAX's default precision, with times in ms and the rest in the graph's units.

    Raises:
        ValueError: naming the node, for one or an option that jaxlif does not have, a number that breaks a rule, a loop
            without a neuron, a node off the way from the input to the output, or signals of another shape than a node
            takes; for several inputs or outputs, times in another unit than seconds, or no dt.
        ImportError: without the package ``nir``.

    Example:
        >>> import nir, numpy as np
        >>> one = np.ones(2)
        >>> neurons = nir.LIF(tau=0.01 * one, r=one, v_leak=0.0 * one, v_threshold=one)
        >>> network, params = from_nir(nir.NIRGraph.from_list(nir.Affine(np.ones((2, 3)), one), neurons), dt=1.0)
        >>> [type(layer).__name__ for layer in network.layers], params[1].tau_m.tolist()
        (['Dense', 'LIF'], [10.0, 10.0])

    Source: Pedersen et al. 2024, doi:10.1038/s41467-024-52259-9.
    """
    if not isinstance(graph, _nir().NIRGraph):
        raise ValueError(f"graph = {type(graph).__name__}: graph must be a nir.NIRGraph")
    if integration not in ("exact", "euler"):
        raise ValueError(f'integration = {integration!r}: integration must be "exact" or "euler"')
    reader = Reader(_given_dt(graph, dt), surrogate or SuperSpike(), reset, integration == "euler")
    return reader.network(wires(graph, reader.unfold))


def _given_dt(graph: Any, dt: float | None) -> float:
    metadata = graph.metadata if isinstance(graph.metadata, dict) else {}
    unit = metadata.get("time_unit", "s")
    if (unit.decode() if isinstance(unit, bytes) else unit) != "s":
        raise ValueError(f"time_unit = {unit!r}: a graph's times must be in seconds")
    if dt is None and "dt" not in metadata:
        raise ValueError("dt: the graph's metadata has none; give one, ms")
    step = number("dt", float(metadata["dt"]) * MS if dt is None else dt, "ms")
    require_positive("dt", step, "ms")
    return float(step)


def _nir() -> Any:
    try:
        import nir
    except ImportError as error:
        raise ImportError("NIR graphs need the package nir: pip install 'jaxlif[snn]'") from error
    return nir
