"""What this machine can do: its device, threads, precisions, memory."""
