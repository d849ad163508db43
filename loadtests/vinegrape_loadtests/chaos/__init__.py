"""`vinegrape chaos`: faults of clients, of processes and of the machine, each tried on a running server."""
