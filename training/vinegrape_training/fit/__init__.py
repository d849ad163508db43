"""One training run: configuration, training, the run's folder."""
