"""Feedback: what an image that was classified really shows. From it follow the accuracy and the calibration in use."""
