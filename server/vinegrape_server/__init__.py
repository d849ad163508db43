"""Serves a model archive: starts TorchServe with its workers and supervises them."""
