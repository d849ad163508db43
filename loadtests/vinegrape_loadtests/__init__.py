"""What serving costs, and whether it holds under load; `locustfile.py` says how to run it."""
