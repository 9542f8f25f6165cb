"""Fitting: bounds, one compiled loop, several starts, and the recipe for recordings."""

from jaxlif.fitting.bounds import REAL as REAL
from jaxlif.fitting.bounds import coordinates as coordinates
from jaxlif.fitting.fit import Fit as Fit
from jaxlif.fitting.fit import FitWarning as FitWarning
from jaxlif.fitting.fit import Multistart as Multistart
from jaxlif.fitting.fit import fit as fit
from jaxlif.fitting.fit import multistart as multistart
