"""What happens to spikes on their way: delays, arrival at synapses, dropout."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, PyTree

from jaxlif import checks
from jaxlif.neurons.cell import require_array_input, state_dtype
from jaxlif.neurons.wrappers import Wrapper
from jaxlif.synapses import Drive, PreciseSynaptic, Synaptic, TimedDrive, VoltageJump


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class DelayParams:
    """Parameters of delayed channels, each a scalar or [N].

    Args:
        delay: ms. For a fit, ``bounds = {"*.delay": (0.0, max_delay)}`` keeps it inside by a logit.
        sigma: spread over lags, steps, above 0; None for interpolation.
    """

    delay: Float[Array | np.ndarray, "..."] | float
    sigma: Float[Array | np.ndarray, "..."] | float | None = None

    def check(self) -> None:
        """Raise ValueError where a concrete value breaks its rule; tracers pass."""
        checks.require_not_negative("delay", self.delay, "ms")
        if self.sigma is not None:
            checks.require_positive("sigma", self.sigma, "steps")


class DelayState(NamedTuple):
    """The last K inputs [K, N], the oldest first."""

    past: Array


@dataclass(frozen=True)
class Delayed:
    r"""Channels that arrive late, each by its own delay: :math:`y_n = \sum_{k=0}^{K} w_k(\delta)\, x_{n-k}`.

    With :math:`\delta = delay/dt`, the weights interpolate linearly between the two steps beside :math:`\delta`: the
    delay of a signal that is linear between steps is exact, a spike becomes two parts that sum to one, and the
    gradient with respect to the delay is that of the interpolation (from the right at a whole number of steps).
    With a spread, :math:`w_k \propto e^{-(k-\delta)^2/2\sigma^2}`, normalised to one: the gradient then sees spikes
    several steps away. Training narrows it towards 0, and the trained delays run with ``sigma = None``.

    Before the first step the input was 0. The bounds of the delay belong to the fit: nothing is clipped.
    ``Feedback(neuron, Sequential((Delayed(...), Dense())))`` are neurons whose spikes reach one another late, by an
    axonal delay from the end of the step that spikes.

    Args:
        dt: step, ms.
        max_delay: longest delay, ms; K is the number of steps in it, rounded up.

    Example:
        >>> import jaxlif as jl
        >>> cell, params = Delayed(dt=1.0, max_delay=5.0), DelayParams(delay=jnp.array([0.0, 2.0, 2.25]))
        >>> spikes = jnp.zeros((5, 3)).at[0].set(1.0)
        >>> jl.simulate(cell, params, spikes)[1].T.tolist()
        [[1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.75, 0.25, 0.0]]

    Source: Hammouamri, Khalfaoui-Hassani & Masquelier 2023, doi:10.48550/arXiv.2306.17670 (the narrowing Gaussian).
    """

    dt: float
    max_delay: float

    def __post_init__(self) -> None:
        checks.require_positive("dt", self.dt, "ms")
        checks.require_positive("max_delay", self.max_delay, "ms")

    @property
    def max_lag(self) -> int:
        """The longest delay in whole steps, K."""
        # 0.3/0.1 divides to a little less than 3, 2.1/0.1 to a little more than 21: a millionth is rounding.
        return max(1, math.ceil(self.max_delay / self.dt * (1.0 - 1e-6)))

    def check(self, params: DelayParams) -> None:
        """Raise ValueError where a concrete delay is longer than max_delay."""
        checks.require_params(self, params, DelayParams)
        if checks.concrete(params.delay):
            rule = f"delay must not exceed max_delay = {self.max_delay:g} ms"
            within = np.asarray(params.delay) <= self.max_delay * (1.0 + 1e-6)  # 7 times 0.1 is no longer than 0.7
            checks.require(within, "delay", params.delay, "ms", rule)

    def init_state(self, params: DelayParams, x: Array) -> DelayState:
        """Return a past of zeros for inputs that broadcast with the delays."""
        delay, own = jnp.shape(params.delay), jnp.shape(x)  # one number may go through several delays [N]
        fits = all(n in (1, m) or m == 1 for n, m in zip(delay[::-1], own[::-1], strict=False))
        if len(delay) > max(1, len(own)) or not fits:
            raise ValueError(f"delay {list(delay)}: it does not go with an input {list(own)}")
        shape = jnp.broadcast_shapes(delay, own)
        return DelayState(jnp.zeros((self.max_lag, *shape), state_dtype(params, x)))

    def step(self, params: DelayParams, state: DelayState, x: Array) -> tuple[DelayState, Array]:
        """Return what arrives in this step, [N], and remember ``x`` [N]."""
        state, outputs = self.scan(params, state, jnp.asarray(x)[None])
        return state, outputs[0]

    def scan(
        self, params: DelayParams, state: DelayState, inputs: Array, *, unroll: int = 1
    ) -> tuple[DelayState, Array]:
        """Delay ``inputs`` [T, N] as a whole: one shifted window of the time axis for each lag that counts."""
        past, steps = state.past, len(inputs)
        inputs = jax.vmap(lambda x: jnp.broadcast_to(x, past.shape[1:]))(jnp.asarray(inputs, past.dtype))
        line = jnp.concatenate([past, inputs])

        def _per_channel(value: ArrayLike) -> Array:
            return jnp.broadcast_to(jnp.asarray(value, line.dtype), line.shape[1:])[None]

        def _read(lag: Array) -> Array:
            return _window(line, self.max_lag - lag, steps)

        delay, after = _per_channel(params.delay) / self.dt, DelayState(line[steps:])
        if params.sigma is None:
            return after, _interpolate(delay, self.max_lag, _read)
        return after, _spread(delay, _per_channel(params.sigma), self.max_lag, _read)


def _interpolate(delay: Array, max_lag: int, read: Callable[[Array], Array]) -> Array:
    # The last interval is closed: a delay of exactly max_delay lies at its end.
    before = jnp.clip(jnp.floor(jax.lax.stop_gradient(delay)), 0, max_lag - 1)
    fraction, lag = delay - before, before.astype(jnp.int32)
    return (1.0 - fraction) * read(lag) + fraction * read(lag + 1)


def _spread(delay: Array, sigma: Array, max_lag: int, read: Callable[[Array], Array]) -> Array:
    lags = jnp.arange(max_lag + 1, dtype=delay.dtype).reshape((-1,) + (1,) * delay.ndim)
    # A softmax never divides 0 by 0, however narrow the Gaussian.
    weights = jax.nn.softmax(-0.5 * ((lags - delay[None]) / sigma[None]) ** 2, axis=0)  # [K + 1, 1, N]

    @jax.checkpoint  # a window is cheaper read again than kept for the gradient
    def _add(total: Array, lag: Array) -> tuple[Array, None]:
        return total + weights[lag] * read(lag), None

    first = weights[0] * read(jnp.zeros((), jnp.int32))
    return jax.lax.scan(_add, first, jnp.arange(1, max_lag + 1, dtype=jnp.int32))[0]


def _window(line: Array, start: Array, steps: int) -> Array:
    """Return ``steps`` rows of ``line`` [., N] from one start, or from each channel's own, [1, N]."""
    if start.ndim == 0:
        return jax.lax.dynamic_slice_in_dim(line, start, steps)
    columns = line.reshape(line.shape[0], -1)
    cut = jax.vmap(partial(jax.lax.dynamic_slice_in_dim, slice_size=steps), (1, 0), 1)
    return cut(columns, start.ravel()).reshape((steps, *line.shape[1:]))


@dataclass(frozen=True)
class Arriving(Wrapper):
    """A neuron with synapses as a layer: what the layer before passes on are the weights that arrive at its synapses.

    Args:
        neuron: a :class:`jaxlif.Synaptic` neuron with synapses of one kind, and not of another below them; put a
            constant current into its ``v_rest``. To a :class:`jaxlif.Conductance` negative weights are refused. At a
            :class:`jaxlif.PreciseSynaptic` all arrives at the step's end, and :class:`PreciseDense` may follow.
        kinds: K, kinds of synapse: the input [K N] is that of the first kind for all neurons, then that of the next.
            Without effect on :class:`jaxlif.VoltageJump`, which takes [N].

    Example:
        >>> import jaxlif as jl
        >>> params = jl.SynapticParams(neuron=jl.LIFParams().normalised(), synapse=jl.CurrentParams(tau_syn=5.0))
        >>> cell = Arriving(jl.Synaptic(jl.LIF(dt=1.0), jl.ExponentialCurrent()))
        >>> jl.simulate(cell, params, jnp.ones((20, 3)))[1].spikes.shape
        (20, 3)
    """

    neuron: Any
    kinds: int = 1

    def __post_init__(self) -> None:
        checks.whole("kinds", self.kinds, 1)
        if not isinstance(self.neuron, Synaptic | PreciseSynaptic):
            raise ValueError(
                f"neuron = {type(self.neuron).__name__}: Arriving needs a Synaptic or PreciseSynaptic neuron"
            )
        require_array_input(self, self.neuron.neuron)

    def check_inputs(self, inputs: Array) -> None:
        """Raise ValueError where a concrete arrival breaks a rule of the synapse."""
        self.neuron.synapse.check_arrivals(inputs)

    def init_state(self, params: PyTree, x: Array) -> PyTree:
        """Return the neuron's fresh state and closed synapses."""
        return self.neuron.init_state(params, self._drive(x))

    def step(self, params: PyTree, state: PyTree, x: Array) -> tuple[PyTree, Any]:
        """Advance one step in which ``x`` [K N] arrives; the output is the neuron's."""
        return self.neuron.step(params, state, self._drive(x))  # type: ignore[no-any-return]

    def _drive(self, x: Array) -> Any:
        drive = self._on_grid(jnp.asarray(x, state_dtype(x)))
        if isinstance(self.neuron, Synaptic):
            return drive
        return TimedDrive(drive.arrivals[None], jnp.full(1, self.neuron.dt, drive.arrivals.dtype), drive.input)

    def _on_grid(self, x: Array) -> Drive:
        if isinstance(self.neuron.synapse, VoltageJump):
            return Drive(x, jnp.zeros_like(x))
        if x.ndim != 1 or x.shape[0] % self.kinds:
            raise ValueError(f"input {list(x.shape)}: for {self.kinds} kinds of synapse it must be [{self.kinds} N]")
        arrivals = x.reshape((self.kinds, -1))
        return Drive(arrivals, jnp.zeros_like(arrivals[0]))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class DropoutParams:
    """What a dropout draws its mask from: the random key of a simulation; None keeps everything, for evaluation."""

    key: Array | None = None

    def check(self) -> None:
        """Raise ValueError for a key that is none, such as its seed."""
        if self.key is not None:
            checks.random_key(self.key)


class DropoutState(NamedTuple):
    """The factor of each input [N]: 0 or 1/(1 - rate), the same in all steps."""

    mask: Array


@dataclass(frozen=True)
class Dropout:
    r"""Inputs that fall silent for a whole simulation: :math:`y_n = m\,x_n`, :math:`P(m_i = 1/(1-r)) = 1 - r`, else 0.

    The mask is drawn from the key in the parameters when the state is made: one key gives one network throughout the
    sample. :func:`train` folds it with its step, so that each drops others, and takes it out in validation; elsewhere a
    new step takes a new one, ``replace(params, key=key)``. Without a key, or at the rate r = 0, inputs pass unchanged.

    Example:
        >>> import jaxlif as jl
        >>> params = DropoutParams(key=jax.random.key(0))
        >>> sorted(set(jl.simulate(Dropout(0.5), params, jnp.ones((3, 100)))[1].sum(axis=0).tolist()))
        [0.0, 6.0]

    Source: Srivastava et al. 2014, JMLR 15:1929; Lee et al. 2020, doi:10.3389/fnins.2020.00119 (one mask for all
    steps of a spiking network).
    """

    rate: float

    def __post_init__(self) -> None:
        if not 0.0 <= checks.numbers("rate", self.rate, rank=0, finite=False) < 1.0:
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
