"""From recordings as they were made, at 500 Hz or another rate, to those at 100 Hz."""
