"""Load tests with Locust (`vinegrape loadtest`) and benchmarks (`vinegrape bench`)."""
