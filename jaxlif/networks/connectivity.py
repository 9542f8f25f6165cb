"""Who is connected with whom: rules that draw the synapses of a projection, each a value.

A rule's ``draw(generator, source, target)`` returns where the synapses begin and end, both [E], as indices into the two
populations, sorted by source. ``expected(num_in, num_out)`` is how many they will be, so that what does not fit into
memory is refused before it is drawn. ``same`` says that a population is connected with itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxlif.checks import integers, numbers, require, whole


class Ends(NamedTuple):
    """Two populations: their sizes, whether they are one, their positions [n, dimensions] or None."""

    num_in: int
    num_out: int
    same: bool = False
    positions: tuple[Any, Any] = (None, None)


Synapses = tuple[np.ndarray, np.ndarray]
SLAB = 2**22  # synapses at once, where numbers of 64 bits would pile up


class Rule(ABC):
    """A rule of connection."""

    @abstractmethod
    def expected(self, ends: Ends) -> float:
        """Return how many synapses there will be, or their mean number."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, ends: Ends) -> Synapses:
        """Return source [E] and target [E] of the synapses."""


@dataclass(frozen=True)
class Pairwise(Rule):
    """Each pair is connected with a probability, on its own; no neuron with itself unless ``autapses``.

    Example:
        >>> source, target = Pairwise(0.1).draw(np.random.default_rng(0), Ends(100, 200))
        >>> abs(len(source) - 2000) < 4 * 2000**0.5
        True

    Source: Erdős & Rényi 1959; Vogels & Abbott 2005, doi:10.1523/JNEUROSCI.3508-05.2005.
    """

    probability: float
    autapses: bool = False

    def __post_init__(self) -> None:
        ok = 0.0 < numbers("probability", self.probability, rank=0) <= 1.0
        require(ok, "probability", self.probability, "", "probability must be above 0 and at most 1")

    def expected(self, ends: Ends) -> float:
        """Return the mean number of synapses."""
        return self.probability * ends.num_in * ends.num_out

    def draw(self, rng: np.random.Generator, ends: Ends) -> Synapses:
        """Draw the gaps between connected pairs: as many numbers as there are synapses."""
        alone = ends.same and not self.autapses
        among = ends.num_out - alone
        pairs, found, last = ends.num_in * among, [], -1
        while last < pairs:
            mean = self.probability * (pairs - last)
            left = int(mean + 4.0 * mean**0.5) + 16
            while left > 0:
                pair = last + np.cumsum(rng.geometric(self.probability, min(left, SLAB)))
                left, last = left - len(pair), int(pair[-1])
                source, target = np.divmod(pair[pair < pairs], max(among, 1))
                found.append(np.stack([source, target + (target >= source if alone else 0)]).astype(np.int32))
        source, target = np.concatenate(found, axis=1)
        return source, target


@dataclass(frozen=True)
class _Fixed(Rule):
    """A number of synapses for each neuron at one end, whose other ends are drawn evenly.

    With ``multapses`` two neurons may have several synapses; without, every synapse has another partner.
    """

    number: int
    multapses: bool = True
    autapses: bool = True

    def __post_init__(self) -> None:
        whole("number", self.number, 1)

    def _partners(self, rng: np.random.Generator, own: int, others: int, same: bool) -> np.ndarray:
        """Return partners [own, number] out of ``others``."""
        alone = same and not self.autapses
        among = others - alone
        if among < (1 if self.multapses else self.number):
            raise ValueError(f"number = {self.number}: only {among} partners are there for each neuron")
        if self.multapses:
            found = rng.integers(among, size=(own, self.number), dtype=np.int32)
        else:
            found = np.empty((own, self.number), np.int32)
            for partners in found:
                partners[:] = rng.choice(among, self.number, replace=False, shuffle=False)
        if alone:
            found += found >= np.arange(own)[:, None]
        return found


@dataclass(frozen=True)
class FixedInDegree(_Fixed):
    """Each target has the same number of synapses, whose sources are drawn evenly."""

    def expected(self, ends: Ends) -> float:
        """Return the number of synapses."""
        return self.number * ends.num_out

    def draw(self, rng: np.random.Generator, ends: Ends) -> Synapses:
        """Draw the sources of each target."""
        source = self._partners(rng, ends.num_out, ends.num_in, ends.same).ravel()
        order = order_of(source, ends.num_in)
        return _repeated(np.bincount(source, minlength=ends.num_in)), order // np.int32(self.number)


@dataclass(frozen=True)
class FixedOutDegree(_Fixed):
    """Each source has the same number of synapses, whose targets are drawn evenly."""

    def expected(self, ends: Ends) -> float:
        """Return the number of synapses."""
        return self.number * ends.num_in

    def draw(self, rng: np.random.Generator, ends: Ends) -> Synapses:
        """Draw the targets of each source."""
        target = self._partners(rng, ends.num_in, ends.num_out, ends.same).ravel()
        return np.repeat(np.arange(ends.num_in, dtype=np.int32), self.number), target


@dataclass(frozen=True)
class FixedNumber(Rule):
    """So many synapses in all, both ends of each drawn evenly: multapses and autapses included."""

    number: int

    def __post_init__(self) -> None:
        whole("number", self.number, 1)

    def expected(self, ends: Ends) -> float:
        """Return the number of synapses."""
        return self.number

    def draw(self, rng: np.random.Generator, ends: Ends) -> Synapses:
        """Draw both ends."""
        source, target = (rng.integers(n, size=self.number, dtype=np.int32) for n in (ends.num_in, ends.num_out))
        order = order_of(source, ends.num_in)
        return source[order], target[order]


@dataclass(frozen=True)
class OneToOne(Rule):
    """Neuron i is connected with neuron i."""

    def expected(self, ends: Ends) -> float:
        """Return the number of synapses."""
        return ends.num_in

    def draw(self, rng: np.random.Generator, ends: Ends) -> Synapses:
        """Return equal ends; populations of different sizes are refused."""
        if ends.num_in != ends.num_out:
            raise ValueError(f"OneToOne: the sizes are {ends.num_in} and {ends.num_out}: they must be the same")
        return np.arange(ends.num_in), np.arange(ends.num_in)


@dataclass(frozen=True)
class AllToAll(Rule):
    """Every pair is connected; no neuron with itself unless ``autapses``."""

    autapses: bool = False

    def expected(self, ends: Ends) -> float:
        """Return the number of synapses."""
        return ends.num_in * (ends.num_out - (ends.same and not self.autapses))

    def draw(self, rng: np.random.Generator, ends: Ends) -> Synapses:
        """Return all pairs."""
        source = np.repeat(np.arange(ends.num_in, dtype=np.int32), ends.num_out)
        target = np.tile(np.arange(ends.num_out, dtype=np.int32), ends.num_in)
        kept = source != target if ends.same and not self.autapses else slice(None)
        return source[kept], target[kept]


@dataclass(frozen=True, eq=False)
class Edges(Rule):
    """The synapses that are given: source [E] and target [E], in this order, several between two neurons included."""

    source: Any
    target: Any

    def expected(self, ends: Ends) -> float:
        """Return the number of synapses."""
        return len(np.asarray(self.source))

    def draw(self, rng: np.random.Generator, ends: Ends) -> Synapses:
        """Return them, refusing those to neurons that are not there."""
        source, target = (np.asarray(integers(n, getattr(self, n), 1)) for n in ("source", "target"))
        if source.shape != target.shape:
            raise ValueError(f"source {list(source.shape)}, target {list(target.shape)}: each synapse has one of both")
        for name, index, size in (("source", source, ends.num_in), ("target", target, ends.num_out)):
            require((index >= 0) & (index < size), name, index, "", f"the population has neurons 0 to {size - 1}")
        return source, target


@dataclass(frozen=True)
class ByDistance(Rule):
    r"""Each pair is connected with a probability that depends on its distance: :math:`p_{ij} = p(|x_i - x_j|)`.

    Both populations need positions. ``period`` closes space to a ring or torus of that length; no neuron is connected
    with itself.

    Example:
        >>> rule, x = ByDistance(lambda d: np.exp(-(d**2)), period=10.0), np.arange(10.0)[:, None]
        >>> source, target = rule.draw(np.random.default_rng(0), Ends(10, 10, True, (x, x)))
        >>> bool((np.minimum(abs(source - target), 10 - abs(source - target)) <= 4).all())
        True
    """

    probability: Callable[[np.ndarray], Any]
    period: float | None = None

    def expected(self, ends: Ends) -> float:
        """Return the most that there can be."""
        return ends.num_in * ends.num_out

    def draw(self, rng: np.random.Generator, ends: Ends) -> Synapses:
        """Draw the targets of one source after the other."""
        if any(x is None for x in ends.positions):
            raise ValueError("positions = None: ByDistance needs the positions of both populations, [n, dimensions]")
        start, end = (np.asarray(numbers("positions", x, rank=2)) for x in ends.positions)
        if len(start) != ends.num_in or end.shape != (ends.num_out, start.shape[1]):
            sizes = f"[{ends.num_in}, dimensions] and [{ends.num_out}, dimensions]"
            raise ValueError(f"positions {list(start.shape)} and {list(end.shape)}: they must be {sizes}")
        drawn = (np.flatnonzero(rng.random(ends.num_out) < self._chance(x, end)) for x in start)
        rows = [(row[row != i] if ends.same else row).astype(np.int32) for i, row in enumerate(drawn)]
        return _repeated([len(row) for row in rows]), np.concatenate(rows)

    def _chance(self, x: np.ndarray, others: np.ndarray) -> np.ndarray:
        apart = np.abs(others - x)
        apart = apart if self.period is None else np.minimum(apart % self.period, -apart % self.period)
        chance = np.asarray(self.probability(np.sqrt((apart**2).sum(axis=1))))
        require((chance >= 0.0) & (chance <= 1.0), "probability", chance, "", "probability must be from 0 to 1")
        return chance


def order_of(source: np.ndarray, num_in: int) -> np.ndarray:
    """Return the order that sorts synapses by source, stably, in a time that grows with their number alone."""
    from scipy.sparse import csr_array  # takes long to load

    count = len(source)
    each = csr_array((np.empty(count, np.int8), source, np.arange(count + 1, dtype=np.int32)), (count, num_in))
    order: np.ndarray = each.tocsc().indices
    return order


def _repeated(counts: Any) -> np.ndarray:
    return np.repeat(np.arange(len(counts), dtype=np.int32), counts)
