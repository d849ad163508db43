"""Fuzzing: change valid images at random, and check what `decode` and a live server make of them."""
