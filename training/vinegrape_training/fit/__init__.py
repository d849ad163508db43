"""One training run: configuration, training, and the run's folder."""
