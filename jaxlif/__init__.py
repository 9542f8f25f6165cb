"""Leaky integrate-and-fire neurons in JAX that are fitted to recordings and trained in networks.

Units everywhere: ms, mV, pA, GΩ, pF, nS; rates in Hz.
"""

from jaxlif import losses as losses
from jaxlif import networks as networks
from jaxlif import spiketrains as spiketrains
from jaxlif import stimulus as stimulus
from jaxlif import theory as theory
from jaxlif.fitting import REAL as REAL
from jaxlif.fitting import Fit as Fit
from jaxlif.fitting import RecordingFit as RecordingFit
from jaxlif.fitting import SpikeRule as SpikeRule
from jaxlif.fitting import fit as fit
from jaxlif.fitting import fit_rates as fit_rates
from jaxlif.fitting import fit_recording as fit_recording
from jaxlif.fitting import lbfgs as lbfgs
from jaxlif.fitting import load_fit as load_fit
from jaxlif.fitting import multistart as multistart
from jaxlif.gradients import GradientAudit as GradientAudit
from jaxlif.gradients import audit_gradient as audit_gradient
from jaxlif.memory import Plan as Plan
from jaxlif.memory import plan as plan
from jaxlif.neurons import LIF as LIF
from jaxlif.neurons import Cell as Cell
from jaxlif.neurons import Forced as Forced
from jaxlif.neurons import HodgkinHuxley as HodgkinHuxley
from jaxlif.neurons import HodgkinHuxleyParams as HodgkinHuxleyParams
from jaxlif.neurons import LeakyIntegrator as LeakyIntegrator
from jaxlif.neurons import LeakyParams as LeakyParams
from jaxlif.neurons import LIFParams as LIFParams
from jaxlif.neurons import PreciseLIF as PreciseLIF
from jaxlif.neurons import TeacherForced as TeacherForced
from jaxlif.neurons import interval_rate as interval_rate
from jaxlif.neurons import nth_spike_time as nth_spike_time
from jaxlif.neurons import precise_spike_times as precise_spike_times
from jaxlif.recordings import Recording as Recording
from jaxlif.recordings import read_recording as read_recording
from jaxlif.simulate import simulate as simulate
from jaxlif.simulated import simulated_recording as simulated_recording
from jaxlif.surrogate import Arctan as Arctan
from jaxlif.surrogate import Gaussian as Gaussian
from jaxlif.surrogate import MultiGaussian as MultiGaussian
from jaxlif.surrogate import Sigmoid as Sigmoid
from jaxlif.surrogate import SuperSpike as SuperSpike
from jaxlif.surrogate import Triangular as Triangular
from jaxlif.surrogate import spike as spike
from jaxlif.synapses import Conductance as Conductance
from jaxlif.synapses import ConductanceParams as ConductanceParams
from jaxlif.synapses import CurrentParams as CurrentParams
from jaxlif.synapses import Drive as Drive
from jaxlif.synapses import ExponentialCurrent as ExponentialCurrent
from jaxlif.synapses import Synaptic as Synaptic
from jaxlif.synapses import SynapticParams as SynapticParams
from jaxlif.synapses import VoltageJump as VoltageJump
