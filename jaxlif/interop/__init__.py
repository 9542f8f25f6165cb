"""Neurons to and from other programs: NEST, Brian2, snnTorch and Norse; networks through ``interop.nir_graph``."""

from jaxlif.interop.conventions import from_norse as from_norse
from jaxlif.interop.conventions import from_snntorch as from_snntorch
from jaxlif.interop.export import to_brian2 as to_brian2
from jaxlif.interop.export import to_nest as to_nest
from jaxlif.interop.export import to_script as to_script
from jaxlif.interop.from_nest import from_nest as from_nest
