"""Releases that are simulated: files that a reader cannot tell from real ones, with a known answer.

table       every physiological number and its source
worlds      what carries the labels
subjects    who was "recorded", and the generators that it is drawn from
events      what happened in a recording
head        maps of sources on the scalp
background  the brain without a task
trials      what the task adds
artefacts   eyes, muscle, movement, electrodes
signals     all of it, in microvolts
release     a whole release on disk
oracle      what a reader without any background could reach
plot        is it like real EEG?
"""
