"""Parameters and cells that have rules of their own are asked to check them."""

from typing import Any

import jax

from jaxlif.checks import concrete as concrete
from jaxlif.checks import require as require
from jaxlif.checks import require_below as require_below
from jaxlif.checks import require_different as require_different
from jaxlif.checks import require_finite as require_finite
from jaxlif.checks import require_not_negative as require_not_negative
from jaxlif.checks import require_positive as require_positive


def check_params(params: Any) -> None:
    """Call ``check()`` on every node of a pytree of parameters that has one."""
    for node in jax.tree.leaves(params, is_leaf=lambda node: hasattr(node, "check")):
        if hasattr(node, "check"):
            node.check()


def check_cell(cell: Any, params: Any) -> None:
    """Let a cell that has rules of its own, such as one between its dt and a parameter, check its parameters."""
    if hasattr(cell, "check"):
        cell.check(params)
