"""The commands of training: `vinegrape data`, `train`, `evaluate`, `tune`, `compare`, `export`, `archive`."""
