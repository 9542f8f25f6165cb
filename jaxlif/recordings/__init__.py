"""Recordings of real neurons: files of several formats read into pA, mV and ms, spikes found, protocols described."""

from jaxlif.recordings.artefacts import artefact_notes as artefact_notes
from jaxlif.recordings.csv_file import read_rates as read_rates
from jaxlif.recordings.electrode import Electrode as Electrode
from jaxlif.recordings.electrode import estimate_electrode as estimate_electrode
from jaxlif.recordings.electrode import remove_electrode as remove_electrode
from jaxlif.recordings.hum import hum_notes as hum_notes
from jaxlif.recordings.protocol import Epoch as Epoch
from jaxlif.recordings.protocol import FITable as FITable
from jaxlif.recordings.protocol import Protocol as Protocol
from jaxlif.recordings.protocol import fi_table as fi_table
from jaxlif.recordings.protocol import is_step_protocol as is_step_protocol
from jaxlif.recordings.protocol import step_family as step_family
from jaxlif.recordings.protocol import steps as steps
from jaxlif.recordings.readers import read_recording as read_recording
from jaxlif.recordings.recording import Recording as Recording
from jaxlif.recordings.recording import RecordingWarning as RecordingWarning
from jaxlif.recordings.recording import repeats as repeats
from jaxlif.recordings.recording import require_current_variation as require_current_variation
from jaxlif.recordings.recording import stimulus_label as stimulus_label
from jaxlif.recordings.rest import resting_potentials as resting_potentials
from jaxlif.recordings.sampling import held_current as held_current
from jaxlif.recordings.sampling import is_sampled as is_sampled
from jaxlif.recordings.sampling import sampling_notes as sampling_notes
from jaxlif.recordings.spike_detection import SpikeRule as SpikeRule
from jaxlif.recordings.spike_detection import detect_spikes as detect_spikes
from jaxlif.recordings.spike_detection import spike_notes as spike_notes
