"""Parameters and cells that have rules of their own are asked to check them."""

from typing import Any

from jaxlif.checks import check_params as check_params
from jaxlif.checks import concrete as concrete
from jaxlif.checks import require as require
from jaxlif.checks import require_below as require_below
from jaxlif.checks import require_different as require_different
from jaxlif.checks import require_finite as require_finite
from jaxlif.checks import require_not_negative as require_not_negative
from jaxlif.checks import require_positive as require_positive


def check_cell(cell: Any, params: Any) -> None:
    """Let a cell that has rules of its own, such as one between its dt and a parameter, check its parameters."""
    if hasattr(cell, "check"):
        cell.check(params)


def check_inputs(cell: Any, inputs: Any) -> None:
    """Refuse an input of another form than the cell takes, or one that breaks a rule of the cell."""
    takes = getattr(cell, "takes", None)
    if takes is not None and not isinstance(inputs, takes):
        name = type(cell).__name__
        raise ValueError(
            f"inputs = {type(inputs).__name__}: {name} takes a {takes.__name__}({', '.join(takes._fields)})"
        )
    if hasattr(cell, "check_inputs"):
        cell.check_inputs(inputs)


def require_params(cell: Any, params: Any, kind: type, field: str = "params") -> None:
    """Refuse parameters of another kind than a cell takes."""
    if not isinstance(params, kind):
        found = type(params).__name__.removeprefix("_")
        raise ValueError(f"{field} = {found}: {type(cell).__name__} takes {kind.__name__}")


MEMBRANE = ("tau_m", "r_m", "v_rest")
PLAIN = (*MEMBRANE, "v_th", "v_reset", "t_ref")
MECHANISMS = ("a", "b", "coupling", "eta", "gamma")  # of adaptive and resonant neurons, which others would pass over


def require_fields(
    cell: Any, params: Any, fields: tuple[str, ...] = PLAIN, mechanisms: tuple[str, ...] = MECHANISMS
) -> None:
    """Refuse parameters that lack a field of the cell, or hold a mechanism that it does not have."""
    name, found = type(cell).__name__, type(params).__name__.removeprefix("_")
    for field in fields:
        if not hasattr(params, field):
            raise ValueError(f"params = {found}: it has no {field}, which {name} needs")
    for field in mechanisms:
        value = getattr(params, field, None)
        if value is not None and not (isinstance(value, tuple) and not value):
            raise ValueError(f"params = {found}: {name} does not have their {field}")
