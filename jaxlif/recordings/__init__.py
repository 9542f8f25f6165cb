"""Recordings of real neurons: files of several formats read into pA, mV and ms, spikes found, protocols described."""

from jaxlif.recordings.electrode import Electrode as Electrode
from jaxlif.recordings.electrode import estimate_electrode as estimate_electrode
from jaxlif.recordings.electrode import remove_electrode as remove_electrode
from jaxlif.recordings.read import read_recording as read_recording
from jaxlif.recordings.recording import Recording as Recording
from jaxlif.recordings.recording import RecordingWarning as RecordingWarning
from jaxlif.recordings.recording import repeats as repeats
from jaxlif.recordings.spikes import SpikeRule as SpikeRule
