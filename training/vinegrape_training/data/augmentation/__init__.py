"""Augmentation of training images: geometry and colour of the leaf, its background, and what a camera adds."""
