"""What a training is fed: arrays of samples, or a stream, a function that gives the batches of an epoch."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import PyTree

from jaxlif.checks import arrays_of_numbers, length, number, require
from jaxlif.fitting.bounds import named_leaves
from jaxlif.networks.epoch import num_samples, on_host, typed_key


@dataclass(frozen=True)
class Stream:
    """A function of an epoch's number that gives its batches, in the order in which they are taken."""

    name: str
    make: Callable[[int], Iterable[Any]]
    batch_size: int

    def first(self) -> Any:
        """Return the first batch of epoch 0, which shows what all are like."""
        return next(self._given(0))

    def batches(self, epoch: int) -> Iterator[Any]:
        """Yield the batches of an epoch, in the host's memory; only the last may have fewer samples than others."""
        first, size = None, self.batch_size
        for place, batch in enumerate(self._given(epoch)):
            where = f"{self.name}({epoch})[{place}]"
            if size < self.batch_size:
                raise ValueError(f"{where} comes after one of {size} samples: only the last may have fewer than others")
            size, first = num_samples(batch), batch if first is None else first
            _require_alike(where, batch, first)
            yield batch

    def _given(self, epoch: int) -> Iterator[Any]:
        made, place = self.make(epoch), -1
        if not isinstance(made, Iterable):
            raise ValueError(f"{self.name}({epoch}) returned {type(made).__name__}: it must be an iterable of batches")
        for place, batch in enumerate(made):
            where, batch = f"{self.name}({epoch})[{place}]", jax.tree.map(on_host, batch)
            if (size := require_samples(batch, where)) > self.batch_size:
                raise ValueError(f"{where} has {size} samples: a batch has batch_size = {self.batch_size}")
            yield batch
        if place < 0:
            rule = "it must make an iterator anew for each epoch, with one batch at least"
            raise ValueError(f"{self.name}({epoch}) gave nothing: {rule}")


def given(name: str, samples: Any, batch_size: int) -> Any:
    """Return arrays of samples as they are, a function as a stream; refuse a bare iterator, of which nothing would be
    left after an epoch, and a loader's samples, which are no batches.
    """
    if callable(samples):
        return Stream(name, samples, batch_size)
    known = isinstance(samples, Mapping | list | tuple | str) or hasattr(samples, "dtype")
    if not known and (isinstance(samples, Iterable) or hasattr(samples, "__getitem__")):
        what = f"{name} is {type(samples).__name__}"
        raise ValueError(f"{what}: batches are given by a function of the epoch's number, lambda epoch: ...")
    require_samples(samples, name)
    return samples


def hold_out(data: PyTree, fraction: float, key: Array) -> tuple[PyTree, PyTree]:
    """Cut a random fraction off the samples, the same for the same key; return the rest and the part.

    ``data`` are arrays [samples, ...]; both keep the samples' order and have one at least.

    Example:
        >>> rest, part = hold_out(jnp.arange(10), 0.2, jax.random.key(0))
        >>> rest.shape, part.shape
        ((8,), (2,))
    """
    samples, key = require_samples(data, "data"), typed_key(key)
    size = round(fraction * samples) if 0.0 < number("validation", fraction) < 1.0 else 0
    if not 0 < size < samples:
        rule = "both parts must have at least one, so it must lie between 0 and 1"
        raise ValueError(f"validation = {fraction:g} of {samples} samples: {rule}")
    order = np.asarray(jax.random.permutation(key, samples))
    part, rest = np.sort(order[:size]), np.sort(order[size:])
    return jax.tree.map(lambda x: x[rest], data), jax.tree.map(lambda x: x[part], data)


def example(samples: Any) -> Any:
    """Return arrays that show what a batch is like, whatever its number of samples."""
    return samples.first() if isinstance(samples, Stream) else samples


def require_samples(data: Any, name: str) -> int:
    """Return the number of samples; refuse what is no array of numbers, arrays that differ in it, and nan."""
    arrays_of_numbers(name, data)
    leaves = {f"{name}.{path}".rstrip("."): x for path, x in named_leaves(data).items()}
    samples = length(name, data, "samples")
    for path, x in leaves.items():
        # A sample that is nan makes every step that sees it be skipped, and no validation that sees it the best.
        if jnp.issubdtype(x.dtype, jnp.inexact) and bool(jnp.isnan(x).any()):
            require(~np.isnan(x), path, x, "", "samples must be numbers; leave it out or fill it in")
    return samples


def _require_alike(where: str, batch: Any, first: Any) -> None:
    """Refuse a batch for which a step would be compiled anew, but for its number of samples."""
    same: bool = jax.tree.structure(batch) == jax.tree.structure(first)  # type: ignore[operator]  # not typed in JAX
    if not same:
        raise ValueError(f"{where} has another structure than the first batch")
    for name, x, like in zip(named_leaves(batch), *map(jax.tree.leaves, (batch, first)), strict=True):
        if x.shape[1:] != like.shape[1:] or x.dtype != like.dtype:
            found, wanted = (f"{a.dtype} [{', '.join(map(str, ('batch', *a.shape[1:])))}]" for a in (x, like))
            raise ValueError(f"{where}.{name} is {found}, in the first batch {wanted}: all must be alike")
