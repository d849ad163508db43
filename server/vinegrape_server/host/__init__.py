"""This machine: cores and GPUs, processes, signals, console, HTTP, temporary folder."""
