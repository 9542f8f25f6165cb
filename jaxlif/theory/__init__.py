r"""Closed forms of the leaky integrate-and-fire neuron, and integrals where there is none.

``params`` is anything with the fields of `LIFParams`. An adaptive or resonant neuron is taken where its mechanisms
change nothing, such as before its first spike, and refused with a ValueError elsewhere; so is a concrete value that
breaks its rule. A traced NaN gives NaN. Everything is differentiable and broadcasts scalars against arrays of one
shape; for more, use ``jax.vmap``. Time is continuous here: a grid finds its spikes up to one step later.
"""

from jaxlif.theory.conductance import conductance_moments as conductance_moments
from jaxlif.theory.conductance import shunted_rate as shunted_rate
from jaxlif.theory.conductance import with_conductances as with_conductances
from jaxlif.theory.constant import equilibrium as equilibrium
from jaxlif.theory.constant import firing_rate as firing_rate
from jaxlif.theory.constant import rheobase as rheobase
from jaxlif.theory.constant import spike_latency as spike_latency
from jaxlif.theory.constant import step_response as step_response
from jaxlif.theory.diffusion import diffusion_rate as diffusion_rate
from jaxlif.theory.diffusion import interval_cv as interval_cv
from jaxlif.theory.diffusion import voltage_density as voltage_density
from jaxlif.theory.ions import goldman as goldman
from jaxlif.theory.ions import nernst as nernst
from jaxlif.theory.mean_field import FixedPoints as FixedPoints
from jaxlif.theory.mean_field import fixed_points as fixed_points
from jaxlif.theory.mean_field import mean_field_rates as mean_field_rates
from jaxlif.theory.renewal import Renewal as Renewal
from jaxlif.theory.renewal import escape_renewal as escape_renewal
from jaxlif.theory.response import rate_response as rate_response
from jaxlif.theory.synaptic import Moments as Moments
from jaxlif.theory.synaptic import Peak as Peak
from jaxlif.theory.synaptic import alpha_psp as alpha_psp
from jaxlif.theory.synaptic import double_exponential_psp as double_exponential_psp
from jaxlif.theory.synaptic import exponential_psp as exponential_psp
from jaxlif.theory.synaptic import jump_moments as jump_moments
from jaxlif.theory.synaptic import psp_peak as psp_peak
from jaxlif.theory.synaptic import synaptic_moments as synaptic_moments
from jaxlif.theory.synaptic import voltage_moments as voltage_moments
