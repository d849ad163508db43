"""Figures and plots of a network's predictions."""
