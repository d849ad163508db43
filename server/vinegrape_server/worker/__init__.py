"""The worker program that TorchServe starts; it imports nothing else of the server."""
