"""TorchServe's frontend: its configuration, its log, its Java."""
