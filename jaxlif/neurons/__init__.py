"""Neurons: one file for each model."""

from jaxlif.neurons.cell import Cell as Cell
from jaxlif.neurons.cell import SpikingNeuron as SpikingNeuron
from jaxlif.neurons.cell import relax as relax
from jaxlif.neurons.hodgkin_huxley import HodgkinHuxley as HodgkinHuxley
from jaxlif.neurons.hodgkin_huxley import HodgkinHuxleyParams as HodgkinHuxleyParams
from jaxlif.neurons.lif import LIF as LIF
from jaxlif.neurons.lif import LIFOutput as LIFOutput
from jaxlif.neurons.lif import LIFParams as LIFParams
from jaxlif.neurons.lif import LIFState as LIFState
from jaxlif.neurons.readout import LeakyIntegrator as LeakyIntegrator
from jaxlif.neurons.readout import LeakyOutput as LeakyOutput
from jaxlif.neurons.readout import LeakyParams as LeakyParams
from jaxlif.neurons.readout import LeakyState as LeakyState
from jaxlif.neurons.teacher_forced import Forced as Forced
from jaxlif.neurons.teacher_forced import ForcedOutput as ForcedOutput
from jaxlif.neurons.teacher_forced import TeacherForced as TeacherForced
