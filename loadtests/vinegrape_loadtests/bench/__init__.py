"""Benchmarks of serving: against the same work without a server, and against other servers (`vinegrape bench`)."""

WORKLOADS = ("png", "jpeg", "photo", "mix")
