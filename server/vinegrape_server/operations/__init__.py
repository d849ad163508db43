"""The operations port and the metrics that it serves."""
