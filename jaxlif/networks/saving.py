"""Parameters of a network in a file: arrays and a description as text, nothing that is run when it is read."""

import json
import os
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxlif.checks import arrays_of_numbers
from jaxlif.files import load_arrays, reading, require_file, staged
from jaxlif.fitting.bounds import named_leaves
from jaxlif.networks.epoch import is_key

_FORMAT = "parameters of a network, by jaxlif, 1"
_Leaves = list[list[Any]]  # of each leaf its name, kind and shape


def save_network(path: str | os.PathLike[str], params: PyTree, network: Any = None) -> None:
    """Save parameters with a description of their network in one file, a NumPy archive, whole or not at all.

    Args:
        path: the file, .npz; one that is there is replaced.
        params: any pytree of arrays, numbers and random keys, such as ``Training.params``.
        network: the cell that they are of, for :func:`load_network` to compare.

    Raises:
        ValueError: for leaves that are no numbers, and a place at which nothing can be written.

    Example:
        >>> import tempfile, jaxlif as jl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_network(f"{folder}/net.npz", jl.LeakyParams(tau_m=15.0), jl.LeakyIntegrator(dt=1.0))
        ...     load_network(f"{folder}/net.npz", jl.LeakyParams(), jl.LeakyIntegrator(dt=1.0)).tau_m
        15.0
    """
    arrays_of_numbers("params", params)
    arrays: dict[str, Any] = {f"{i:06d}": _bits(x) for i, x in enumerate(jax.tree.leaves(params))}
    about = json.dumps([_FORMAT, f"jaxlif {version('jaxlif')}", _text(network), _described(params)])
    path = Path(path).absolute()
    with staged(path.parent) as folder, open(folder / path.name, "wb") as file:
        np.savez(file, about=about, **arrays)


def load_network(path: str | os.PathLike[str], like: PyTree, network: Any = None) -> Any:
    """Load the parameters that :func:`save_network` saved, bit by bit.

    Args:
        path: the file.
        like: parameters with the structure, shapes and dtypes that are expected, such as a start; a Python number
            stands for a number of any dtype.
        network: the cell that is to run with them; that which was saved must be the same, where both are given.

    Returns:
        A pytree of the structure of ``like``.

    Raises:
        ValueError: for a file that is damaged, of other parameters or of another network; the difference is named.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_network(f"{folder}/net.npz", {"weight": jnp.arange(3.0)})
        ...     load_network(f"{folder}/net.npz", like={"weight": jnp.zeros(3)})["weight"].tolist()
        [0.0, 1.0, 2.0]
    """
    path = Path(path)
    with reading(path):
        require_file(path)
        form, _, text, leaves = json.loads(str(load_arrays(path, ["about"]).get("about", '["", "", "", ""]')))
        if form != _FORMAT:
            raise ValueError("it holds no parameters that save_network saved")
        _require_same_network(text, _text(network))
        _require_same_leaves(leaves, _described(like))
        arrays = load_arrays(path, [f"{i:06d}" for i in range(len(leaves))])
        restored = [_restored(x, *leaf) for x, leaf in zip(arrays.values(), leaves, strict=True)]
        params = jax.tree.unflatten(jax.tree.structure(like), restored)
        if _described(params) != leaves:
            raise ValueError("it is damaged: its arrays are not those that it names")
    return params


def _described(params: Any) -> _Leaves:
    return [[name, _kind(x), list(np.shape(x))] for name, x in named_leaves(params).items()]


def _kind(x: Any) -> str:
    if is_key(x):
        return f"key {jax.random.key_impl(x)}"
    return "number" if isinstance(x, bool | int | float) else str(x.dtype)


def _bits(x: Any) -> np.ndarray:
    """Return an array of a kind that every reader of the format knows: bfloat16 and keys as whole numbers."""
    array = np.asarray(jax.device_get(jax.random.key_data(x) if is_key(x) else x))
    return array if array.dtype.kind in "biuf" else np.asarray(array.view(f"u{array.itemsize}"))


def _restored(x: np.ndarray, name: str, kind: str, _: Any) -> Any:
    if kind == "number":
        return x.item()
    if kind.startswith("key "):
        return jax.random.wrap_key_data(jnp.asarray(x), impl=kind.removeprefix("key "))
    array = jnp.asarray(x.view(jnp.dtype(kind)))
    if array.dtype != kind:
        raise ValueError(f'{name} is {kind}: jax.config.update("jax_enable_x64", True) keeps its digits')
    return array


def _text(network: Any) -> str | None:
    """Describe a cell by its value; where in memory a function of its lies is none of it."""
    return None if network is None else re.sub(r" at 0x[0-9a-f]+", "", repr(network))


def _require_same_network(there: str | None, here: str | None) -> None:
    if None not in (there, here) and there != here:
        at = max(0, len(os.path.commonprefix([str(there), str(here)])) - 30)
        what = [f"...{str(text)[at : at + 60]}..." for text in (there, here)]
        raise ValueError(f"it is of another network: {what[0]} in the file, {what[1]} here")


def _require_same_leaves(there: _Leaves, here: _Leaves) -> None:
    saved, own = ({name: (kind, shape) for name, kind, shape in leaves} for leaves in (there, here))
    for name in [name for name in [*saved, *own] if name not in saved or name not in own]:
        where = "in the file and not in like" if name in saved else "in like and not in the file"
        raise ValueError(f"it is of other parameters: {name} is {where}")
    for name, (kind, shape) in saved.items():
        wanted, its_shape = own[name]
        if shape != its_shape or not (kind == wanted or (wanted == "number" and not kind.startswith("key"))):
            what = f"{name} is {kind} {shape} in the file, {wanted} {its_shape} in like"
            raise ValueError(f"it is of other parameters: {what}")
