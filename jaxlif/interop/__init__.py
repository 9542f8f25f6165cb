"""Neurons to and from other programs: NEST, Brian2, the Allen Institute's GLIF models, snnTorch and Norse."""

from jaxlif.interop.allen import from_allen as from_allen
from jaxlif.interop.brian2 import Brian2Model as Brian2Model
from jaxlif.interop.brian2 import to_brian2 as to_brian2
from jaxlif.interop.conventions import from_norse as from_norse
from jaxlif.interop.conventions import from_snntorch as from_snntorch
from jaxlif.interop.nest import to_nest as to_nest
