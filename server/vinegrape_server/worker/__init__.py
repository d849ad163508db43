"""The worker program that TorchServe starts. It imports nothing else of the server."""
