"""Servers and processes on this machine, for measurements and tests."""
