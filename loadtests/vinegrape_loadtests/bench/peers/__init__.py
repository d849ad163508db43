"""What people serve the same network with otherwise."""
