"""Training that survives what it runs on: devices that crash, memory that runs short, processes
that are killed."""
