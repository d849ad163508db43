"""The process that runs TorchServe, and the command line `vinegrape`."""
