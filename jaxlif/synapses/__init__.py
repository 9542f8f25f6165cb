"""Synapses by composition: ``Synaptic(neuron, synapse)`` is a spiking neuron like the one that it wraps.

Arrivals are the summed weights of the spikes that reach a neuron in a step; they act at the step's end, after the
integration: a voltage jump is seen by that step's threshold test, a current or a conductance from the next step on.
"""

from jaxlif.synapses.base import Drive as Drive
from jaxlif.synapses.base import Synapse as Synapse
from jaxlif.synapses.base import Synaptic as Synaptic
from jaxlif.synapses.base import SynapticParams as SynapticParams
from jaxlif.synapses.base import SynapticState as SynapticState
from jaxlif.synapses.base import VoltageJump as VoltageJump
from jaxlif.synapses.conductances import NMDA as NMDA
from jaxlif.synapses.conductances import AlphaConductance as AlphaConductance
from jaxlif.synapses.conductances import Conductance as Conductance
from jaxlif.synapses.conductances import ConductanceParams as ConductanceParams
from jaxlif.synapses.conductances import DoubleExponentialConductance as DoubleExponentialConductance
from jaxlif.synapses.conductances import DoubleExponentialConductanceParams as DoubleExponentialConductanceParams
from jaxlif.synapses.conductances import NMDAParams as NMDAParams
from jaxlif.synapses.currents import AlphaCurrent as AlphaCurrent
from jaxlif.synapses.currents import CurrentParams as CurrentParams
from jaxlif.synapses.currents import DoubleExponentialCurrent as DoubleExponentialCurrent
from jaxlif.synapses.currents import DoubleExponentialCurrentParams as DoubleExponentialCurrentParams
from jaxlif.synapses.currents import ExponentialCurrent as ExponentialCurrent
from jaxlif.synapses.kinds import Kinds as Kinds
from jaxlif.synapses.precise import PreciseSynaptic as PreciseSynaptic
from jaxlif.synapses.precise import TimedDrive as TimedDrive
from jaxlif.synapses.precise import timed_arrivals as timed_arrivals
from jaxlif.synapses.short_term import TsodyksMarkram as TsodyksMarkram
from jaxlif.synapses.short_term import TsodyksMarkramParams as TsodyksMarkramParams
from jaxlif.synapses.stdp import STDP as STDP
from jaxlif.synapses.stdp import Pairs as Pairs
from jaxlif.synapses.stdp import PlasticPath as PlasticPath
from jaxlif.synapses.stdp import STDPParams as STDPParams
