"""TorchServe: its configuration, its Java, its process, its log, and requests to it."""
