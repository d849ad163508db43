"""The command line `vinegrape`."""
