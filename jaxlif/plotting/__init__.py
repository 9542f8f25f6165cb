"""Figures of voltages, spikes, rates and fits: functions of arrays that return the Axes they drew on.

Nothing here knows a neuron, and nothing calls ``plt.show``. A figure made here has the look of :data:`STYLE`;
``plt.rcParams.update(STYLE)`` gives it to figures of your own. ``import jaxlif`` leaves this module out:
``from jaxlif import plotting``.
"""

from jaxlif.plotting.style import GUIDE as GUIDE
from jaxlif.plotting.style import PALETTE as PALETTE
from jaxlif.plotting.style import STYLE as STYLE
from jaxlif.plotting.sweeps import sweeps as sweeps
from jaxlif.plotting.traces import fi_curve as fi_curve
from jaxlif.plotting.traces import fit_overlay as fit_overlay
from jaxlif.plotting.traces import raster as raster
from jaxlif.plotting.traces import trace as trace
from jaxlif.plotting.training import audit_panels as audit_panels
from jaxlif.plotting.training import flight_panels as flight_panels
from jaxlif.plotting.training import gradient_audit as gradient_audit
from jaxlif.plotting.training import gradient_over_time as gradient_over_time
from jaxlif.plotting.training import layer_cosines as layer_cosines
from jaxlif.plotting.training import loss_history as loss_history
