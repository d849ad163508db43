"""A finished run to weights, metadata and the archive."""
