"""The process that runs TorchServe, its workers, and the command line `vinegrape`."""
