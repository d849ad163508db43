"""Helpers that tests share: servers, archives, images, stand-ins."""
