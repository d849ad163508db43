"""What TorchServe is told. A package, so that an installed `vinegrape serve` finds these files from any folder."""
