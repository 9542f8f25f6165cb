"""Networks: layers as cells, encoders, and the losses of classification."""

from jaxlif.networks.classification import accuracy as accuracy
from jaxlif.networks.classification import cross_entropy as cross_entropy
from jaxlif.networks.encoders import latency_code as latency_code
from jaxlif.networks.encoders import rate_code as rate_code
from jaxlif.networks.layers import Dense as Dense
from jaxlif.networks.layers import DenseParams as DenseParams
from jaxlif.networks.layers import NetworkOutput as NetworkOutput
from jaxlif.networks.layers import Recurrent as Recurrent
from jaxlif.networks.layers import RecurrentParams as RecurrentParams
from jaxlif.networks.layers import RecurrentState as RecurrentState
from jaxlif.networks.layers import Sequential as Sequential
from jaxlif.networks.layers import init_dense as init_dense
from jaxlif.networks.layers import init_neurons as init_neurons
from jaxlif.networks.layers import init_recurrent as init_recurrent
from jaxlif.networks.layers import signal as signal
