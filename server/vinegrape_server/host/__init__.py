"""This machine: cores, processes, signals, console, HTTP, the instance's folder."""
