"""Recordings of real neurons: files of several formats read into pA, mV and ms, spikes found, protocols described."""

from jaxlif.recordings.electrode import Electrode as Electrode
from jaxlif.recordings.electrode import estimate_electrode as estimate_electrode
from jaxlif.recordings.electrode import remove_electrode as remove_electrode
from jaxlif.recordings.notes import notes_on as notes_on
from jaxlif.recordings.notes import resting_potentials as resting_potentials
from jaxlif.recordings.protocol import fi_table as fi_table
from jaxlif.recordings.protocol import find_epochs as find_epochs
from jaxlif.recordings.protocol import is_step_protocol as is_step_protocol
from jaxlif.recordings.protocol import step_family as step_family
from jaxlif.recordings.read import read_recording as read_recording
from jaxlif.recordings.recording import Recording as Recording
from jaxlif.recordings.recording import RecordingWarning as RecordingWarning
from jaxlif.recordings.recording import repeats as repeats
from jaxlif.recordings.spikes import SpikeRule as SpikeRule
from jaxlif.recordings.spikes import detect_spikes as detect_spikes
from jaxlif.recordings.text import read_rates as read_rates
