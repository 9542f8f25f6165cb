"""Compiled functions of hashable values, such as a cell or a loss, that do not keep every value for ever."""

from collections.abc import Callable, Hashable
from functools import lru_cache, partial, wraps
from typing import Any

import jax


def compiled(*, values: int = 1, keep: int) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function for each combination of its first ``values`` arguments, which are hashable; ``keep`` of them
    stay, where ``jax.jit(..., static_argnums=...)`` keeps all. ``function.program(*values)`` is the compiled one.
    """

    def _decorated(function: Callable[..., Any]) -> Any:
        @lru_cache(maxsize=keep)
        def _program(*chosen: Hashable) -> Any:
            return jax.jit(partial(function, *chosen))

        def _call(*arguments: Any) -> Any:
            return _program(*arguments[:values])(*arguments[values:])

        call: Any = wraps(function)(_call)
        call.program = _program
        return call

    return _decorated
