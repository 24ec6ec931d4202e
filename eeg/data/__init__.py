"""From a release on disk to batches: release, recording, trials, windows, cache, batches, features,
synth.
"""
