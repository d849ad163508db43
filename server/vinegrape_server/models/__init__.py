"""Replacing the served model without a stop: `vinegrape models`."""
