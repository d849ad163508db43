"""The faults: each function tries one on a running server. `vinegrape_loadtests.chaos.rows` lists them."""
