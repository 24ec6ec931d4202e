"""From a release on disk to batches."""
