"""From a finished run to weights, metadata and the model archive."""
