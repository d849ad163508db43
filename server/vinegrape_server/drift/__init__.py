"""Drift: how much the recent predictions and images differ from the model's reference."""
