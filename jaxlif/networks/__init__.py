"""Networks: layers as cells, losses of classification, training and its instruments, populations by name.

``from jaxlif.networks import *`` brings what follows; encoders are in ``jaxlif.networks.encoders``.

Layers
    Sequential, Graph                              networks
    Dense, Conv, Sparse                            projections
    Recurrent, Feedback, Arriving                  neurons that drive one another, or have synapses
    PreciseDense, PreciseRecurrent, TimedSpikes    spikes off the grid, with exact gradients
    Fused                                          neurons whose loop over time is one kernel on a GPU
    SumPool, Flatten, Normalise, Delayed, Dropout  what happens to signals on their way
    DenseParams, SparseParams, RecurrentParams, FeedbackParams, DelayParams, DropoutParams
    PreciseDenseParams

Starts
    init_neurons, init_dense, init_recurrent       normalised neurons, and weights
    init_precise, timed_spikes                     the same off the grid; spike times in their steps
    init_adaptive, init_resonant, init_adex        other neurons
    alive_gain, balance                            the gain at which neurons fire; weights that silence none
    drive_gain, scale_to_drive                     weights that move voltages by so many thresholds

Training
    train, train_many, Training, TrainingWarning, hold_out
    save_network, load_network                     parameters in a file, with what they are of
    cross_entropy, accuracy, activity_band         losses and a score
    first_spike_logits                             the earliest neuron wins
    eprop_loss                                     a gradient in memory that does not grow with time
    quantise                                       weights of few bits
    read_events, Events                            recordings of event cameras and cochleas
    flight_record                                  what each layer does
    summary, Summary, LayerSummary                 what it is and costs

Populations
    build, Population, Projection, Network         a network by name
    run, Activity, NetworkWarning, Probe           its spikes
    Pairwise, FixedInDegree, FixedOutDegree, FixedNumber, OneToOne, AllToAll, Edges, ByDistance
    connect                                        the synapses of a Sparse by such a rule
    poisson_drive, PoissonParams, noise_drive, NoiseParams
    PopulationNetwork, PopulationParams            the network as a cell
"""

from types import ModuleType as _Module

from jaxlif.networks.activity import Activity as Activity
from jaxlif.networks.activity import NetworkWarning as NetworkWarning
from jaxlif.networks.activity import run as run
from jaxlif.networks.builder import Network as Network
from jaxlif.networks.builder import Population as Population
from jaxlif.networks.builder import Projection as Projection
from jaxlif.networks.builder import build as build
from jaxlif.networks.connectivity import AllToAll as AllToAll
from jaxlif.networks.connectivity import ByDistance as ByDistance
from jaxlif.networks.connectivity import Edges as Edges
from jaxlif.networks.connectivity import FixedInDegree as FixedInDegree
from jaxlif.networks.connectivity import FixedNumber as FixedNumber
from jaxlif.networks.connectivity import FixedOutDegree as FixedOutDegree
from jaxlif.networks.connectivity import OneToOne as OneToOne
from jaxlif.networks.connectivity import Pairwise as Pairwise
from jaxlif.networks.course import Training as Training
from jaxlif.networks.course import TrainingWarning as TrainingWarning
from jaxlif.networks.delays import Arriving as Arriving
from jaxlif.networks.delays import Delayed as Delayed
from jaxlif.networks.delays import DelayParams as DelayParams
from jaxlif.networks.delays import Dropout as Dropout
from jaxlif.networks.delays import DropoutParams as DropoutParams
from jaxlif.networks.drives import NoiseParams as NoiseParams
from jaxlif.networks.drives import PoissonParams as PoissonParams
from jaxlif.networks.drives import noise_drive as noise_drive
from jaxlif.networks.drives import poisson_drive as poisson_drive
from jaxlif.networks.eprop import eprop_loss as eprop_loss
from jaxlif.networks.events import Events as Events
from jaxlif.networks.events import read_events as read_events
from jaxlif.networks.feedback import Feedback as Feedback
from jaxlif.networks.feedback import FeedbackParams as FeedbackParams
from jaxlif.networks.feedback import Recurrent as Recurrent
from jaxlif.networks.feedback import RecurrentParams as RecurrentParams
from jaxlif.networks.feedback import init_recurrent as init_recurrent
from jaxlif.networks.fused import Fused as Fused
from jaxlif.networks.gains import alive_gain as alive_gain
from jaxlif.networks.gains import balance as balance
from jaxlif.networks.gains import drive_gain as drive_gain
from jaxlif.networks.gains import scale_to_drive as scale_to_drive
from jaxlif.networks.graph import Graph as Graph
from jaxlif.networks.graph import Sequential as Sequential
from jaxlif.networks.groups import PopulationParams as PopulationParams
from jaxlif.networks.layers import Conv as Conv
from jaxlif.networks.layers import Dense as Dense
from jaxlif.networks.layers import DenseParams as DenseParams
from jaxlif.networks.layers import Flatten as Flatten
from jaxlif.networks.layers import Normalise as Normalise
from jaxlif.networks.layers import SumPool as SumPool
from jaxlif.networks.layers import init_dense as init_dense
from jaxlif.networks.layers import init_neurons as init_neurons
from jaxlif.networks.liveliness import flight_record as flight_record
from jaxlif.networks.losses import accuracy as accuracy
from jaxlif.networks.losses import activity_band as activity_band
from jaxlif.networks.losses import cross_entropy as cross_entropy
from jaxlif.networks.losses import first_spike_logits as first_spike_logits
from jaxlif.networks.populations import PopulationNetwork as PopulationNetwork
from jaxlif.networks.precise import PreciseDense as PreciseDense
from jaxlif.networks.precise import PreciseDenseParams as PreciseDenseParams
from jaxlif.networks.precise import PreciseRecurrent as PreciseRecurrent
from jaxlif.networks.precise import TimedSpikes as TimedSpikes
from jaxlif.networks.precise import init_precise as init_precise
from jaxlif.networks.precise import timed_spikes as timed_spikes
from jaxlif.networks.probes import Probe as Probe
from jaxlif.networks.quantise import quantise as quantise
from jaxlif.networks.samples import hold_out as hold_out
from jaxlif.networks.saving import load_network as load_network
from jaxlif.networks.saving import save_network as save_network
from jaxlif.networks.sparse import Sparse as Sparse
from jaxlif.networks.sparse import SparseParams as SparseParams
from jaxlif.networks.sparse import connect as connect
from jaxlif.networks.starts import init_adaptive as init_adaptive
from jaxlif.networks.starts import init_adex as init_adex
from jaxlif.networks.starts import init_resonant as init_resonant
from jaxlif.networks.summary import LayerSummary as LayerSummary
from jaxlif.networks.summary import Summary as Summary
from jaxlif.networks.summary import summary as summary
from jaxlif.networks.training import train as train
from jaxlif.networks.training import train_many as train_many

# What is imported here by name, not the modules that it is imported from.
__all__ = [name for name, value in vars().items() if not name.startswith("_") and not isinstance(value, _Module)]
