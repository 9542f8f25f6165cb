"""The spike function: a Heaviside step forwards, a pseudo-derivative backwards.

The argument of a pseudo-derivative is the dimensionless distance to threshold
``x = (v - v_th) / (v_th - v_rest)``, so that one surrogate serves a neuron in mV and a normalised one alike.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Float

# A pseudo-derivative: a hashable callable from the distance to threshold to dS/dx, of any shape.
Surrogate = Callable[[Array], Array]


@dataclass(frozen=True)
class SuperSpike:
    r"""The squared fast sigmoid, :math:`1 / (1 + \beta |x|)^2`, peak 1; a larger ``slope`` :math:`\beta` is narrower.

    Example:
        >>> float(SuperSpike(slope=10.0)(jnp.asarray(0.1)))
        0.25

    Source: Zenke & Ganguli 2018, doi:10.1162/neco_a_01086.
    """

    slope: float = 10.0

    def __call__(self, x: Array, /) -> Array:
        """Return dS/dx at ``x``."""
        return 1.0 / (1.0 + self.slope * jnp.abs(x)) ** 2


@dataclass(frozen=True)
class Arctan:
    r"""The derivative of an arctangent, :math:`\frac{a}{2} / (1 + (\frac{\pi}{2} a x)^2)`, peak :math:`a/2`, slope a.

    Source: Fang et al. 2021, doi:10.1109/ICCV48922.2021.00266.
    """

    slope: float = 2.0

    def __call__(self, x: Array, /) -> Array:
        """Return dS/dx at ``x``."""
        return 0.5 * self.slope / (1.0 + (0.5 * math.pi * self.slope * x) ** 2)


@dataclass(frozen=True)
class Sigmoid:
    r"""The derivative of a logistic, :math:`a \, \sigma(a x) (1 - \sigma(a x))`, peak :math:`a/4`, slope a.

    Source: Neftci, Mostafa & Zenke 2019, doi:10.1109/MSP.2019.2931595.
    """

    slope: float = 4.0

    def __call__(self, x: Array, /) -> Array:
        """Return dS/dx at ``x``."""
        # sigma(y) sigma(-y) underflows to 0 where exp(-y) alone would overflow.
        return self.slope * jax.nn.sigmoid(self.slope * x) * jax.nn.sigmoid(-self.slope * x)


@dataclass(frozen=True)
class Triangular:
    r"""A triangle of a ``height`` h and half a base's ``width`` w, :math:`h \max(0, 1 - |x|/w)`.

    Source: Bellec et al. 2018, arXiv:1803.09574 (there h = 0.3, w = 1).
    """

    height: float = 1.0
    width: float = 1.0

    def __call__(self, x: Array, /) -> Array:
        """Return dS/dx at ``x``."""
        return self.height * jnp.maximum(0.0, 1.0 - jnp.abs(x) / self.width)


@dataclass(frozen=True)
class Gaussian:
    r"""A normal density, :math:`N(x; 0, \sigma^2)`, peak :math:`1 / (\sqrt{2\pi}\, \sigma)`.

    Source: Yin, Corradi & Bohté 2021, doi:10.1038/s42256-021-00397-w.
    """

    sigma: float = 0.5

    def __call__(self, x: Array, /) -> Array:
        """Return dS/dx at ``x``."""
        return _normal(x, 0.0, self.sigma)


@dataclass(frozen=True)
class MultiGaussian:
    r"""A Gaussian with negative flanks: :math:`\gamma[(1 + h) N(x; 0, \sigma) - h N(x; \pm\sigma, s\sigma)]`.

    Here :math:`\pm` stands for the sum of both terms; ``flank`` is h, ``spread`` s and ``scale`` :math:`\gamma`.

    Source: Yin, Corradi & Bohté 2021, doi:10.1038/s42256-021-00397-w.
    """

    sigma: float = 0.5
    flank: float = 0.15
    spread: float = 6.0
    scale: float = 0.5

    def __call__(self, x: Array, /) -> Array:
        """Return dS/dx at ``x``."""
        wide = self.spread * self.sigma
        flanks = _normal(x, self.sigma, wide) + _normal(x, -self.sigma, wide)
        return self.scale * ((1.0 + self.flank) * _normal(x, 0.0, self.sigma) - self.flank * flanks)


def _normal(x: Array, mean: float, sigma: float) -> Array:
    return jnp.exp(-0.5 * ((x - mean) / sigma) ** 2) / (math.sqrt(2.0 * math.pi) * sigma)


def spike(x: Float[Array, "*N"], surrogate: Surrogate) -> Float[Array, "*N"]:
    r"""Emit a spike, 1, where the distance to threshold is not negative: :math:`S(x) = [x \ge 0]`, S' = ``surrogate``.

    Example:
        >>> [float(spike(jnp.asarray(x), SuperSpike())) for x in (-1e-9, 0.0, 1e-9)]
        [0.0, 1.0, 1.0]
    """
    x = jnp.asarray(x)
    return _in_kernels(x, surrogate) if _kernels.get() else jnp.asarray(_spike_p.bind(x, surrogate=surrogate))


def _step(x: Array, surrogate: Surrogate) -> Array:
    return jnp.asarray(x >= 0, jnp.result_type(x))


# A primitive, not a custom_jvp: where JAX differentiates a scan twice it drops such a rule, and with it the derivative
# of the spikes that the first one has kept.
_spike_p = Primitive("spike")
_spike_p.def_impl(jax.jit(_spike_p.bind, static_argnames="surrogate"))
_spike_p.def_abstract_eval(lambda x, **_: jax.core.ShapedArray(x.shape, x.dtype))
mlir.register_lowering(_spike_p, mlir.lower_fun(_step, multiple_results=False))
batching.defvectorized(_spike_p)
ad.defjvp(_spike_p, lambda x_dot, x, surrogate: surrogate(x) * x_dot)

# Pallas lowers no primitive that it does not know.
_kernels: ContextVar[bool] = ContextVar("kernels", default=False)
_in_kernels = jax.custom_jvp(_step, nondiff_argnums=(1,))


@_in_kernels.defjvp
def _jvp_in_kernels(surrogate: Surrogate, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _in_kernels(primals[0], surrogate), surrogate(primals[0]) * tangents[0]


@contextmanager
def for_kernels() -> Iterator[None]:
    """Make spikes of what a Pallas kernel knows, while its body is traced; their second derivative is not in it."""
    token = _kernels.set(True)
    try:
        yield
    finally:
        _kernels.reset(token)
