"""Rules on parameter values: checked on concrete leaves where they are used, silent while tracing."""

from typing import Any

import jax
import numpy as np


def require(ok: Any, field: str, value: Any, unit: str, rule: str) -> None:
    """Raise ValueError naming field, first offending value, unit and rule unless ``ok`` holds everywhere."""
    ok, value = np.broadcast_arrays(np.asarray(ok), np.asarray(value))
    if ok.all():
        return
    index = tuple(int(i) for i in np.argwhere(~ok)[0])
    where = f"[{', '.join(map(str, index))}]" if index else ""
    suffix = f" {unit}" if unit else ""
    raise ValueError(f"{field}{where} = {value[index]:g}{suffix}: {rule}")


def concrete(*values: Any) -> bool:
    """Say whether all values are numbers or arrays at hand, not tracers or placeholders of a transformation."""
    return all(
        isinstance(v, (bool, int, float, np.generic, np.ndarray, jax.Array)) and not isinstance(v, jax.core.Tracer)
        for v in values
    )


def require_finite(field: str, value: Any, unit: str) -> None:
    """Refuse NaN and infinity."""
    if concrete(value):
        require(np.isfinite(value), field, value, unit, f"{field} must be finite")


def require_positive(field: str, value: Any, unit: str) -> None:
    """Refuse anything but finite positive values."""
    require_finite(field, value, unit)
    if concrete(value):
        require(np.asarray(value) > 0, field, value, unit, f"{field} must be greater than 0 {unit}")


def require_not_negative(field: str, value: Any, unit: str) -> None:
    """Refuse anything but finite values of 0 or more."""
    require_finite(field, value, unit)
    if concrete(value):
        require(np.asarray(value) >= 0, field, value, unit, f"{field} must be 0 {unit} or more")


def require_below(field: str, value: Any, other: str, bound: Any, unit: str) -> None:
    """Refuse ``value`` at or above ``bound``, naming both fields."""
    if concrete(value, bound):
        value, bound = np.broadcast_arrays(value, bound)
        ok = value < bound
        limit = float(bound[~ok][0]) if not ok.all() else 0.0
        require(ok, field, value, unit, f"{field} must be below {other} = {limit:g} {unit}")


def require_different(field: str, value: Any, other: str, reference: Any, unit: str) -> None:
    """Refuse ``value`` equal to ``reference``, naming both fields."""
    if concrete(value, reference):
        rule = f"{field} must differ from {other}"
        require(np.not_equal(value, reference), field, value, unit, rule)


def check_params(params: Any) -> None:
    """Call ``check()`` on every node of a pytree of parameters that has one."""
    for node in jax.tree.leaves(params, is_leaf=lambda node: hasattr(node, "check")):
        if hasattr(node, "check"):
            node.check()


def check_cell(cell: Any, params: Any) -> None:
    """Let a cell that has rules of its own, such as one between its dt and a parameter, check its parameters."""
    if hasattr(cell, "check"):
        cell.check(params)
