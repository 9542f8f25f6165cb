"""Leaky integrate-and-fire neurons that are fitted to recordings, simulated, and trained in networks.

``import jaxlif as jl``. Units everywhere: ms, mV, pA, GΩ, pF, nS; rates in Hz. Time is the first axis.

Fit a recording
    read_recording        a file -> Recording (inspect_recording: what is in it)
    recording_features    the lab's table of it, as eFEL and IPFX measure, without a model
    fit_recording         -> RecordingFit: params, cell, intervals, scores, predict
    fit_recordings        several files; load_fit: what was saved
    model_ladder          which mechanisms does this cell need?
    advise_protocol       which further recording would narrow which interval?
    fit_rates             an f-I curve; fit_fi_population: those of many cells
    fit_connectivity      the weights between neurons, of their spike trains

Simulate a neuron
    LIF, LIFParams        how it is computed, and the numbers of the neuron
    AdaptiveLIF, ResonantLIF, AdEx, PreciseLIF, HodgkinHuxley: other neurons
    MembraneCurrent, VoltageCoupling, ACurrent, Exponential: what an AdaptiveLIF has that follows the voltage
    EscapeNoise, TeacherForced, Synaptic: around a neuron; PreciseSynaptic: around a PreciseLIF, spikes off the grid
    simulate              any of them, over time
    stimulus, theory      currents; closed forms
    spiketrains           intervals, coincidences; plotting: the figures

Fit and train what you like
    fit, multistart       any loss, any Optax optimiser; bounds say what is free
    losses                of voltages, spikes and rates
    SuperSpike, ...       surrogates: what stands for a spike's derivative
    audit_gradient        the surrogate's gradient beside the exact one
    networks              Dense, Recurrent, Sequential, Graph, Sparse, train: layers
                          build, run: populations and projections by name
    interop               NEST, Brian2, NIR, snnTorch and Norse

The equation is in neurons/lif.py, the loop in simulation.py, the likelihood in fitting/joint_likelihood.py, the way
from a recording to its report in fitting/fit_recording.py. docs/ says more; so does ``jaxlif --help``.
"""

from jaxlif import interop as interop
from jaxlif import losses as losses
from jaxlif import networks as networks
from jaxlif import spiketrains as spiketrains
from jaxlif import stimulus as stimulus
from jaxlif import theory as theory
from jaxlif.audit import audit_gradient as audit_gradient
from jaxlif.features import recording_features as recording_features
from jaxlif.fitting.advisor import advise_protocol as advise_protocol
from jaxlif.fitting.bounds import REAL as REAL
from jaxlif.fitting.fit import Fit as Fit
from jaxlif.fitting.fit import fit as fit
from jaxlif.fitting.fit import lbfgs as lbfgs
from jaxlif.fitting.fit import multistart as multistart
from jaxlif.fitting.fit_connectivity import Connectivity as Connectivity
from jaxlif.fitting.fit_connectivity import fit_connectivity as fit_connectivity
from jaxlif.fitting.fit_recording import fit_recording as fit_recording
from jaxlif.fitting.ladder import model_ladder as model_ladder
from jaxlif.fitting.rates import FICell as FICell
from jaxlif.fitting.rates import fit_fi_population as fit_fi_population
from jaxlif.fitting.rates import fit_rates as fit_rates
from jaxlif.fitting.result import RecordingFit as RecordingFit
from jaxlif.fitting.result import load_fit as load_fit
from jaxlif.fitting.several import fit_recordings as fit_recordings
from jaxlif.inspection import inspect_recording as inspect_recording
from jaxlif.neurons.a_current import ACurrent as ACurrent
from jaxlif.neurons.adaptive import AdaptiveLIF as AdaptiveLIF
from jaxlif.neurons.adaptive import AdaptiveLIFParams as AdaptiveLIFParams
from jaxlif.neurons.adex import AdEx as AdEx
from jaxlif.neurons.adex import AdExParams as AdExParams
from jaxlif.neurons.cell import Cell as Cell
from jaxlif.neurons.exponential import Exponential as Exponential
from jaxlif.neurons.hodgkin_huxley import HodgkinHuxley as HodgkinHuxley
from jaxlif.neurons.hodgkin_huxley import HodgkinHuxleyParams as HodgkinHuxleyParams
from jaxlif.neurons.leaky import LeakyIntegrator as LeakyIntegrator
from jaxlif.neurons.leaky import LeakyParams as LeakyParams
from jaxlif.neurons.lif import LIF as LIF
from jaxlif.neurons.lif import LIFParams as LIFParams
from jaxlif.neurons.mechanisms import MembraneCurrent as MembraneCurrent
from jaxlif.neurons.mechanisms import VoltageCoupling as VoltageCoupling
from jaxlif.neurons.precise import PreciseLIF as PreciseLIF
from jaxlif.neurons.precise import interval_rate as interval_rate
from jaxlif.neurons.precise import nth_spike_time as nth_spike_time
from jaxlif.neurons.resonant import ResonantLIF as ResonantLIF
from jaxlif.neurons.resonant import ResonantLIFParams as ResonantLIFParams
from jaxlif.neurons.wrappers import EscapeNoise as EscapeNoise
from jaxlif.neurons.wrappers import Forced as Forced
from jaxlif.neurons.wrappers import TeacherForced as TeacherForced
from jaxlif.neurons.wrappers import escape_inputs as escape_inputs
from jaxlif.recordings import Recording as Recording
from jaxlif.recordings import SpikeRule as SpikeRule
from jaxlif.recordings import read_recording as read_recording
from jaxlif.simulated import simulated_recording as simulated_recording
from jaxlif.simulation import simulate as simulate
from jaxlif.surrogate import Arctan as Arctan
from jaxlif.surrogate import Gaussian as Gaussian
from jaxlif.surrogate import MultiGaussian as MultiGaussian
from jaxlif.surrogate import Sigmoid as Sigmoid
from jaxlif.surrogate import SuperSpike as SuperSpike
from jaxlif.surrogate import Triangular as Triangular
from jaxlif.surrogate import spike as spike
from jaxlif.synapses import NMDA as NMDA
from jaxlif.synapses import STDP as STDP
from jaxlif.synapses import AlphaConductance as AlphaConductance
from jaxlif.synapses import AlphaCurrent as AlphaCurrent
from jaxlif.synapses import Conductance as Conductance
from jaxlif.synapses import ConductanceParams as ConductanceParams
from jaxlif.synapses import CurrentParams as CurrentParams
from jaxlif.synapses import DoubleExponentialConductance as DoubleExponentialConductance
from jaxlif.synapses import DoubleExponentialConductanceParams as DoubleExponentialConductanceParams
from jaxlif.synapses import DoubleExponentialCurrent as DoubleExponentialCurrent
from jaxlif.synapses import DoubleExponentialCurrentParams as DoubleExponentialCurrentParams
from jaxlif.synapses import Drive as Drive
from jaxlif.synapses import ExponentialCurrent as ExponentialCurrent
from jaxlif.synapses import Kinds as Kinds
from jaxlif.synapses import NMDAParams as NMDAParams
from jaxlif.synapses import Pairs as Pairs
from jaxlif.synapses import PlasticPath as PlasticPath
from jaxlif.synapses import PreciseSynaptic as PreciseSynaptic
from jaxlif.synapses import STDPParams as STDPParams
from jaxlif.synapses import Synaptic as Synaptic
from jaxlif.synapses import SynapticParams as SynapticParams
from jaxlif.synapses import TimedDrive as TimedDrive
from jaxlif.synapses import TsodyksMarkram as TsodyksMarkram
from jaxlif.synapses import TsodyksMarkramParams as TsodyksMarkramParams
from jaxlif.synapses import VoltageJump as VoltageJump
from jaxlif.synapses import timed_arrivals as timed_arrivals
