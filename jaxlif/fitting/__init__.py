"""Fitting: bounds, one compiled loop, several starts, and the recipe for recordings."""

from jaxlif.fitting.advisor import Advice as Advice
from jaxlif.fitting.advisor import advise_protocol as advise_protocol
from jaxlif.fitting.bounds import REAL as REAL
from jaxlif.fitting.bounds import coordinates as coordinates
from jaxlif.fitting.fit import Fit as Fit
from jaxlif.fitting.fit import fit as fit
from jaxlif.fitting.fit import lbfgs as lbfgs
from jaxlif.fitting.fit import multistart as multistart
from jaxlif.fitting.rates import FICell as FICell
from jaxlif.fitting.rates import Population as Population
from jaxlif.fitting.rates import fit_fi_population as fit_fi_population
from jaxlif.fitting.rates import fit_rates as fit_rates
from jaxlif.fitting.recordings import fit_recording as fit_recording
from jaxlif.fitting.recordings import model_ladder as model_ladder
from jaxlif.fitting.result import Prediction as Prediction
from jaxlif.fitting.result import RecordingFit as RecordingFit
from jaxlif.fitting.result import load_fit as load_fit
from jaxlif.fitting.several import RecordingFits as RecordingFits
from jaxlif.fitting.several import fit_recordings as fit_recordings
