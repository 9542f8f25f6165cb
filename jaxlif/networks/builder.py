"""Build a network from populations and projections, by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Key

from jaxlif import checks
from jaxlif.compiled import compiled
from jaxlif.files import require_memory
from jaxlif.networks.connectivity import Ends, Rule
from jaxlif.networks.drives import Drive, PoissonDrive
from jaxlif.networks.groups import (
    Group,
    PopulationParams,
    PopulationState,
    Table,
    require_neuron,
    synapse_of,
)
from jaxlif.networks.layers import within
from jaxlif.networks.populations import PopulationNetwork
from jaxlif.networks.sparse import rows_of
from jaxlif.synapses import Kinds, TsodyksMarkramParams, VoltageJump

# A number, an array, or what draws one from a NumPy generator: (generator, how many) -> [how many].
Values = Any | Callable[[np.random.Generator, int], Any]

_BYTES, _NUMBERS = 22, 6  # of a synapse, in rows about as long as the longest: indices, and numbers of JAX's precision


@dataclass(frozen=True, kw_only=True, eq=False)
class Population:
    """So many neurons of one kind.

    Args:
        size: n, their number.
        cell: what they are, such as :class:`jaxlif.LIF` or, to receive spikes, :class:`jaxlif.Synaptic`.
        params: its parameters; leaves are numbers or [n], of synapses [K] or [K, n].
        receptors: the names of the cell's kinds of synapse, in their order; those of :class:`jaxlif.synapses.Kinds`
            have names. Into one that begins with "exc" no weight below 0 is taken, into one with "inh" none above,
            where weights have a sign.
        v: the voltage at the start, mV: a number, [n], or a function of a NumPy generator and n; v_rest by default.
        positions: [n, dimensions], for :class:`ByDistance`.
    """

    size: int
    cell: Any
    params: Any
    receptors: tuple[str, ...] = ()
    v: Values = None
    positions: Any = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Projection:
    """Synapses from one population to another.

    Args:
        source: the population whose spikes it carries, a tuple of several, or "*" for all: then one each.
        target: the population that it reaches, likewise.
        rule: who is connected with whom, such as :class:`Pairwise`.
        weight: of each synapse, pA, nS or mV as the receptor says: a number, [E], or a function of a NumPy generator
            and E.
        delay: of each synapse, ms, likewise; one step by default.
        receptor: where it arrives; not needed where the target has one.
        short_term: depression and facilitation of its synapses, parameters of :class:`jaxlif.synapses.TsodyksMarkram`,
            numbers or [n] of the source's neurons; a weight is then that of a release of everything.
        name: what it is called in the parameters; "source->target" by default.
    """

    source: str | tuple[str, ...]
    target: str | tuple[str, ...]
    rule: Rule
    weight: Values
    delay: Values = None
    receptor: str | None = None
    short_term: TsodyksMarkramParams | None = None
    name: str | None = None


class Network(NamedTuple):
    """A network: the cell, its parameters, its state at the start, and source and target [E] of each projection."""

    cell: PopulationNetwork
    params: PopulationParams
    state: PopulationState
    edges: dict[str, tuple[np.ndarray, np.ndarray]]


def build(
    key: Key[Array, ""],
    populations: Mapping[str, Population],
    projections: Sequence[Projection] = (),
    drives: Sequence[tuple[Drive, Any]] = (),
    *,
    max_delay: float | None = None,
    interpolate: bool = False,
) -> Network:
    r"""Draw a network: an ordinary cell with its parameters, to be simulated, fitted and audited.

    Args:
        key: of the connections, the initial voltages, and all that the network draws later.
        populations: by name.
        projections: between them.
        drives: what :func:`poisson_drive` and :func:`noise_drive` return.
        max_delay: longest delay that parameters may take, ms; by default the longest there is.
        interpolate: delays may lie between steps, and have a gradient: see :class:`PopulationNetwork`.

    Returns:
        The :class:`Network`.

    Raises:
        ValueError: what does not fit together, by name; a network that does not fit into memory.

    Example:
        >>> import jaxlif as jl
        >>> from jaxlif.networks import Pairwise
        >>> cell = jl.Synaptic(jl.LIF(dt=0.1), jl.ExponentialCurrent())
        >>> params = jl.SynapticParams(synapse=jl.CurrentParams(tau_syn=jnp.array([5.0, 10.0])))
        >>> kinds = {"cell": cell, "params": params, "receptors": ("exc", "inh")}
        >>> network = build(
        ...     jax.random.key(0),
        ...     {"E": Population(size=80, **kinds), "I": Population(size=20, **kinds)},
        ...     [Projection(source="E", target="*", rule=Pairwise(0.1), weight=50.0, receptor="exc")],
        ... )
        >>> list(network.params.weight), network.cell.size
        (['E->E', 'E->I'], 100)
        >>> jl.simulate(network.cell, network.params, jnp.full(100, 300.0), network.state)[1].spikes["I"].shape
        (100, 20)
    """
    checks.random_key(key)
    # NumPy's generator, seeded by the key: the shapes depend on what is drawn, which JAX does not trace.
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
    if not populations:
        raise ValueError("populations = {}: a network needs one at least")
    named = {}
    for name, population in populations.items():
        with within(name):
            named[name] = _completed(population)
    populations = named
    groups = _groups(populations)
    dt, *others = sorted({float(group.cell.dt) for group in groups})
    if others:
        raise ValueError(f"dt must be the same in all populations: it is {dt:g} and {others[0]:g} ms")
    pairs = _named(_expanded(projections, populations), populations)
    _require_room(pairs, populations)
    drawn = {}
    for name, projection in pairs.items():
        with within(name):
            drawn[name] = _draw(rng, projection, populations, dt)
    weight, delay = ({name: getattr(d, field) for name, d in drawn.items()} for field in ("weight", "delay"))
    longest = max([dt, *(float(np.max(d, initial=0.0)) for d in delay.values())])
    max_lag = _max_lag(longest if max_delay is None else checks.positive("max_delay", max_delay, "ms"), dt, populations)
    outside = _placed(drives, populations)
    cell = PopulationNetwork(
        groups=groups,
        sizes=tuple((name, len(d.source)) for name, d in drawn.items()),
        targets=tuple((str(p.target), str(p.receptor)) for p in pairs.values()),
        max_lag=max_lag,
        drives=tuple((name, d) for name, (d, _) in outside.items()),
        short_term=tuple((name, str(p.source)) for name, p in pairs.items() if p.short_term is not None),
        interpolate=interpolate,
    )
    params = PopulationParams(
        neurons={name: populations[name].params for group in groups for name in group.names},
        weight=weight,
        delay=delay,
        drives={name: p for name, (_, p) in outside.items()},
        short_term={name: p.short_term for name, p in pairs.items() if p.short_term is not None},
        table=_table(cell, pairs, drawn),
        key=jax.random.fold_in(key, 1),
    )
    checks.check_params(params)
    cell.check(params)
    v = {name: _values("v", p.v, rng, p.size) for name, p in populations.items() if p.v is not None}
    state = cell.with_voltages(_fresh(cell, params), v)
    return Network(cell, params, state, {name: (d.source, d.target) for name, d in drawn.items()})


@compiled(values=1, keep=16)
def _fresh(cell: PopulationNetwork, params: PopulationParams) -> PopulationState:
    return cell.init_state(params, 0.0)


class _Drawn(NamedTuple):
    source: np.ndarray
    target: np.ndarray
    weight: Any
    delay: Any


def _completed(population: Population) -> Population:
    """Return a population whose receptors have names: those of its kinds of synapse, where they have some."""
    checks.whole("size", population.size, 1)
    require_neuron(population.cell)
    synapse, given = synapse_of(population.cell), population.receptors
    names = (given,) if isinstance(given, str) else tuple(given)
    if isinstance(synapse, Kinds):
        own = tuple(name for name, _ in synapse.kinds)
        if (names := names or own) != own:
            raise ValueError(f"receptors = {names}: those of Kinds have names, {own}")
    elif isinstance(synapse, VoltageJump) and len(names := names or ("jump",)) > 1:
        raise ValueError(f"receptors = {names}: a voltage jump is one")
    if (synapse is None) != (not names):
        rule = "receptors must name the kinds of synapse of a Synaptic cell, and of no other"
        raise ValueError(f"receptors = {names}, cell = {type(population.cell).__name__}: {rule}")
    if len(set(names)) < len(names):
        raise ValueError(f"receptors = {names}: each must have a name of its own")
    return replace(population, receptors=names)


def _groups(populations: Mapping[str, Population]) -> tuple[Group, ...]:
    """Put populations together whose cells and forms of parameters are the same."""
    kinds: dict[Any, list[str]] = {}
    for name, p in populations.items():
        kinds.setdefault((p.cell, p.receptors, jax.tree.structure(p.params)), []).append(name)
    return tuple(
        Group(tuple(names), tuple(populations[name].size for name in names), cell, receptors)
        for (cell, receptors, _), names in kinds.items()
    )


def _expanded(projections: Sequence[Projection], populations: Mapping[str, Population]) -> list[Projection]:
    """Return one projection for each pair of populations."""

    def _names(given: str | tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(populations) if given == "*" else (given,) if isinstance(given, str) else given
        for name in names:
            _known(name, populations)
        return names

    for p in projections:
        if not isinstance(p.rule, Rule):
            raise ValueError(f"rule = {p.rule!r}: it must be a rule of connection, such as Pairwise(0.1)")
    return [
        replace(p, source=source, target=target)
        for p in projections
        for source in _names(p.source)
        for target in _names(p.target)
    ]


def _known(name: str, populations: Mapping[str, Population]) -> Population:
    if name not in populations:
        raise ValueError(f"population {name!r}: there is none; the populations are {', '.join(populations)}")
    return populations[name]


def _named(projections: list[Projection], populations: Mapping[str, Population]) -> dict[str, Projection]:
    """Name the projections, those between the same two by their receptor too."""
    plain = [p.name or f"{p.source}->{p.target}" for p in projections]
    named: dict[str, Projection] = {}
    for name, p in zip(plain, projections, strict=True):
        full = f"{name}:{p.receptor}" if plain.count(name) > 1 else name
        if full in named:
            raise ValueError(f"projection {full}: two have this name; give each one of its own")
        receptor = _receptor(full, p.receptor, populations[str(p.target)])
        named[full] = replace(p, receptor=receptor)
    return named


def _receptor(where: str, receptor: str | None, population: Population) -> str:
    names = population.receptors
    if not receptor and len(names) == 1:
        return names[0]
    if receptor not in names:
        there = f"the target has {', '.join(names)}" if names else "the target's neurons have no synapses"
        raise ValueError(f"{where}: receptor = {receptor!r}: {there}")
    return receptor


def _placed(drives: Sequence[tuple[Drive, Any]], populations: Mapping[str, Population]) -> dict[str, tuple[Drive, Any]]:
    """Return the drives by name, each at a receptor that is there."""
    placed: dict[str, tuple[Drive, Any]] = {}
    for drive, params in drives:
        population = _known(drive.population, populations)
        if isinstance(drive, PoissonDrive):
            receptor = _receptor(f"drive of {drive.population}", drive.receptor, population)
            drive = PoissonDrive(drive.population, receptor)
        name = f"{drive.population}:{drive.receptor or 'current'}"
        if name in placed:
            place = drive.receptor or "its current"
            raise ValueError(f"drive of {drive.population}: it has two at {place}; add them up")
        placed[name] = drive, params
    return placed


def _require_room(pairs: dict[str, Projection], populations: Mapping[str, Population]) -> None:
    expected = {name: p.rule.expected(_ends(p, populations)) for name, p in pairs.items()}
    total = sum(expected.values())
    if total >= 2**31 - 1:
        raise ValueError(f"{total:.3g} synapses: a network holds at most 2^31 - 2")
    each = _BYTES + _NUMBERS * jnp.zeros(()).itemsize
    require_memory(int(each * total), f"a network of {total:.3g} synapses")


def _max_lag(longest: float, dt: float, populations: Mapping[str, Population]) -> int:
    """Return the longest delay in steps, if there is room for what is on its way so long."""
    lag = max(1, int(np.ceil(longest / dt * (1.0 - 1e-6))))
    places = 2 * lag * sum(p.size * len(p.receptors) for p in populations.values())
    what = f"{places:.3g} places on the way of spikes, for delays of up to {longest:g} ms,"
    if places >= 2**31:
        raise ValueError(f"{what} are more than 2^31 - 1")
    require_memory(places * jnp.zeros(()).itemsize, what)
    return lag


def _ends(p: Projection, populations: Mapping[str, Population]) -> Ends:
    source, target = populations[str(p.source)], populations[str(p.target)]
    return Ends(source.size, target.size, p.source == p.target, (source.positions, target.positions))


def _draw(rng: np.random.Generator, p: Projection, populations: Mapping[str, Population], dt: float) -> _Drawn:
    source, target = p.rule.draw(rng, _ends(p, populations))
    weight = _values("weight", p.weight, rng, len(source))
    delay = dt if p.delay is None else _values("delay", p.delay, rng, len(source))
    checks.require(
        np.asarray(delay) >= dt * (1.0 - 1e-6), "delay", delay, "ms", f"delay must be dt = {dt:g} ms or more"
    )
    return _Drawn(source.astype(np.int32, copy=False), target.astype(np.int32, copy=False), weight, delay)


def _values(field: str, given: Values, rng: np.random.Generator, count: int) -> Any:
    """Return a number, or an array of so many, in JAX's default precision."""
    value = given(rng, count) if callable(given) else given
    value = checks.numbers(field, value, rank=(0, 1))
    if np.ndim(value) and np.shape(value) != (count,):
        raise ValueError(f"{field} has shape {np.shape(value)}: it must be one number or that of each of {count}")
    return jnp.asarray(value, float) if np.ndim(value) else value


def _table(cell: PopulationNetwork, pairs: dict[str, Projection], drawn: dict[str, _Drawn]) -> Table:
    """Lay out all synapses by the row that they come from: a neuron's, or that of what it releases."""
    sizes = {name: n for group in cell.groups for name, n in zip(group.names, group.sizes, strict=True)}
    ends = list(accumulate([*sizes.values(), *(sizes[source] for _, source in cell.short_term)], initial=0))
    spikes = dict(zip(sizes, ends, strict=False))
    released = dict(zip((name for name, _ in cell.short_term), ends[len(sizes) :], strict=False))
    first = {name: released.get(name, spikes[str(p.source)]) for name, p in pairs.items()}
    table, places = rows_of([first[name] + d.source for name, d in drawn.items()], ends[-1]), cell.places
    receptor = (places[str(p.target)][str(p.receptor)].start + drawn[name].target for name, p in pairs.items())
    at = np.concatenate([*receptor, np.zeros(1, np.int32)])
    return Table(receptor=jnp.asarray(at[table]), synapse=jnp.asarray(table))
