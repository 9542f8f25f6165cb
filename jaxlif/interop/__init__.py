"""Neurons to and from other programs: NEST, Brian2 and the Allen Institute's GLIF models; none of them is needed."""

from jaxlif.interop.allen import from_allen as from_allen
from jaxlif.interop.brian2 import Brian2Model as Brian2Model
from jaxlif.interop.brian2 import to_brian2 as to_brian2
from jaxlif.interop.nest import to_nest as to_nest
