"""Leaf images: download, check against the manifest, draw, decode, augment."""
