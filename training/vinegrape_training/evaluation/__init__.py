"""Figures and plots of a model's predictions."""
