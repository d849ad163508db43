"""The protocols that requests are written in. Each module reads the requests to its paths and writes the responses."""
