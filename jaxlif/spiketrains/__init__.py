"""Spike trains as sorted lists of times in ms: statistics of one train, similarity and distance of two.

NumPy only: nothing here is differentiated, and nothing here knows a neuron. A *train* is a one-dimensional
array of sorted spike times (ms); *trains* is a list of them, one per repeat of the same stimulus.
"""

from jaxlif.spiketrains.coincidences import coincidence_factor as coincidence_factor
from jaxlif.spiketrains.coincidences import jackknife_error as jackknife_error
from jaxlif.spiketrains.coincidences import md_star as md_star
from jaxlif.spiketrains.coincidences import mean_coincidence_factor as mean_coincidence_factor
from jaxlif.spiketrains.coincidences import reliability as reliability
from jaxlif.spiketrains.distances import van_rossum as van_rossum
from jaxlif.spiketrains.distances import victor_purpura as victor_purpura
from jaxlif.spiketrains.trains import cv as cv
from jaxlif.spiketrains.trains import firing_rate as firing_rate
from jaxlif.spiketrains.trains import isi as isi
from jaxlif.spiketrains.trains import raster as raster
from jaxlif.spiketrains.trains import spike_times as spike_times
