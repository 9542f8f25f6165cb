"""What keeps training in bounds: normalised features, dropped inputs, and firing rates inside a band."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxlif.checks import not_negative, number, numbers, positive, random_key, require_finite, require_params, whole
from jaxlif.losses import spike_count_rate
from jaxlif.neurons.cell import state_dtype


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class NormaliseParams:
    """Parameters of a normalisation.

    Args:
        scale: g of each feature, scalar or of the input's shape, in units of the rheobase.
        shift: b of each feature, likewise.

    Example:
        >>> NormaliseParams().scale
        1.0
    """

    scale: Array | float = 1.0
    shift: Array | float = 0.0

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        require_finite("scale", self.scale, "")
        require_finite("shift", self.shift, "")


@dataclass(frozen=True)
class Normalise:
    r"""Layer normalisation of each step's input by itself: :math:`y = g\,(x - \bar x)/\sqrt{s^2 + \epsilon} + b`.

    Mean and variance are those over all features of one sample in one step, so nothing depends on the batch, on other
    steps, or on whether it trains. Between a :class:`Dense` and its neurons it sets the current's spread to g.

    Args:
        epsilon: added to the variance, square of the input's unit; a step without any spread stays at b.

    Raises:
        ValueError: for an epsilon that is not positive; while simulating, for an input of one feature, which has no
            spread, or parameters that do not broadcast to the input.

    Example:
        >>> _, y = Normalise(epsilon=1e-12).step(NormaliseParams(shift=5.0), (), jnp.array([1.0, 3.0]))
        >>> [round(float(v), 6) for v in y]
        [4.0, 6.0]

    Source: Ba, Kiros & Hinton 2016, doi:10.48550/arXiv.1607.06450.
    """

    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        positive("epsilon", self.epsilon)

    def check(self, params: NormaliseParams) -> None:
        """Raise ValueError for parameters of another kind."""
        require_params(self, params, NormaliseParams)

    def init_state(self, params: NormaliseParams, x: Array) -> tuple[()]:
        """Return nothing: each step is normalised by itself."""
        return ()

    def step(self, params: NormaliseParams, state: tuple[()], x: Array) -> tuple[tuple[()], Array]:
        """Normalise ``x`` over all its features."""
        x = jnp.asarray(x, state_dtype(params, x))
        if x.size < 2:
            raise ValueError(f"input {list(x.shape)}: the spread over features needs two or more")
        for name, p in vars(params).items():
            given = (1,) * (x.ndim - jnp.ndim(p)) + jnp.shape(p)
            if len(given) > x.ndim or any(n not in (1, m) for n, m in zip(given, x.shape, strict=True)):
                raise ValueError(f"{name} {list(jnp.shape(p))}: it does not go with an input {list(x.shape)}")
        distance = x - jnp.mean(x)
        scale, shift = (jnp.broadcast_to(jnp.asarray(p, x.dtype), x.shape) for p in (params.scale, params.shift))
        return (), scale * distance / jnp.sqrt(jnp.mean(distance**2) + self.epsilon) + shift

    def scan(
        self, params: NormaliseParams, state: tuple[()], inputs: Array, *, unroll: int = 1
    ) -> tuple[tuple[()], Array]:
        """Normalise each step of ``inputs`` [T, ...]."""
        return (), jax.vmap(lambda x: self.step(params, (), x)[1])(inputs)


def init_normalise(num_features: int, *, scale: float = 1.0, shift: float = 0.0) -> NormaliseParams:
    """Return a scale and a shift of each feature, so that each can learn its own.

    Args:
        num_features: N.
        scale: of all at first, in units of the rheobase.
        shift: of all at first, likewise.

    Returns:
        Parameters [N] in JAX's default precision.

    Raises:
        ValueError: for no feature.

    Example:
        >>> init_normalise(2, scale=3.0).scale.tolist()
        [3.0, 3.0]
    """
    whole("num_features", num_features, 1)
    scale, shift = number("scale", scale), number("shift", shift)
    return NormaliseParams(scale=jnp.full((num_features,), float(scale)), shift=jnp.full((num_features,), float(shift)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class DropoutParams:
    """What a dropout draws its mask from.

    Args:
        key: random key of this simulation; None keeps everything, for evaluation.

    Example:
        >>> DropoutParams().key is None
        True
    """

    key: Array | None = None

    def check(self) -> None:
        """Raise ValueError for a key that is none, such as its seed."""
        if self.key is not None:
            random_key(self.key)


class DropoutState(NamedTuple):
    """The factor of each input [N]: 0 or 1/(1 - rate), the same in all steps."""

    mask: Array


@dataclass(frozen=True)
class Dropout:
    r"""Inputs that fall silent for a whole simulation: :math:`y_n = m\,x_n`, :math:`P(m_i = 1/(1-r)) = 1 - r`, else 0.

    The mask is drawn from the key in the parameters when the state is made, so a step is pure and one key gives one
    network throughout the sample. :func:`train` folds it with its step, so that each drops others, and takes it out in
    validation; elsewhere a new step takes a new one, ``replace(params, key=key)``, and a batch one for each sample, by
    ``vmap``. Without a key, or at rate 0, the input passes unchanged, as it should in evaluation.

    Args:
        rate: r, the probability that an input is dropped.

    Raises:
        ValueError: for a rate outside [0, 1).

    Example:
        >>> import jaxlif as jl
        >>> params = DropoutParams(key=jax.random.key(0))
        >>> sorted(set(jl.simulate(Dropout(0.5), params, jnp.ones((3, 100)))[1].sum(axis=0).tolist()))
        [0.0, 6.0]
        >>> jl.simulate(Dropout(0.5), DropoutParams(), jnp.ones((3, 2)))[1].sum(axis=0).tolist()
        [3.0, 3.0]

    Source: Srivastava et al. 2014, JMLR 15:1929; Lee et al. 2020, doi:10.3389/fnins.2020.00119 (one mask for all
    steps of a spiking network).
    """

    rate: float

    def __post_init__(self) -> None:
        if not 0.0 <= numbers("rate", self.rate, rank=0, finite=False) < 1.0:
            raise ValueError(f"rate = {self.rate:g}: rate must be 0 or more and below 1")

    def init_state(self, params: DropoutParams, x: Array) -> DropoutState:
        """Draw the mask, in the shape of the input ``x``."""
        dtype = state_dtype(x)
        if params.key is None or self.rate == 0.0:
            return DropoutState(jnp.ones(jnp.shape(x), dtype))
        kept = jax.random.bernoulli(params.key, 1.0 - self.rate, jnp.shape(x))
        return DropoutState(kept.astype(dtype) / (1.0 - self.rate))

    def step(self, params: DropoutParams, state: DropoutState, x: Array) -> tuple[DropoutState, Array]:
        """Multiply ``x`` [N] by the mask."""
        return state, state.mask * jnp.asarray(x, state.mask.dtype)

    def scan(
        self, params: DropoutParams, state: DropoutState, inputs: Array, *, unroll: int = 1
    ) -> tuple[DropoutState, Array]:
        """Multiply each step of ``inputs`` [T, N] by the mask."""
        return state, state.mask[None] * jnp.asarray(inputs, state.mask.dtype)


def activity_band(spikes: ArrayLike, low: float, high: float, dt: float, mask: ArrayLike | None = None) -> Array:
    r"""Penalise rates outside a band: :math:`\mathrm{mean}_i\,(\nu_i - \mathrm{clip}(\nu_i, \nu_{low}, \nu_{high}))^2`.

    Inside the band value and gradient are 0. For a batch [B, T, N], either ``vmap`` (each sample within the band) or
    first average over the samples (each neuron within it on average). Of an image's spikes make neurons first,
    ``spikes.reshape(T, -1)``.

    Args:
        spikes: 0 or 1, [T] or [T, N], with the surrogate's gradient where a cell made them.
        low: lowest rate without penalty, Hz.
        high: highest rate without penalty, Hz.
        dt: step, ms.
        mask: the steps that count, [T], 0 or 1; all by default.

    Returns:
        A scalar, Hz², in the dtype of ``spikes``; nan where no step counts.

    Raises:
        ValueError: for a batch, a mask of another shape, a dt that is not positive, a negative rate, or a low above
            high.

    Example:
        >>> spikes = jnp.zeros((1000, 2)).at[:30, 0].set(1.0).at[:8, 1].set(1.0)  # 30 Hz and 8 Hz
        >>> float(activity_band(spikes, 10.0, 20.0, 1.0))
        52.0
    """
    low = not_negative("low", low, "Hz")
    if not low <= numbers("high", high, "Hz", rank=0, finite=False):
        raise ValueError(f"low = {low:g} Hz: low must not exceed high = {high:g} Hz")
    rate = spike_count_rate(spikes, dt, mask)
    return jnp.mean(jnp.maximum(rate - high, 0.0) ** 2 + jnp.maximum(low - rate, 0.0) ** 2)
