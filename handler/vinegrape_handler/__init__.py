"""Image bytes to answers: everything the archive carries beside its weights. Imports nothing of TorchServe."""
