"""Leaf images: download, check, draw, read, augment."""
