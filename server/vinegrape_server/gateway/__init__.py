"""The gRPC gateway: a program of its own that forwards calls to REST. `process` starts it from the supervisor.

Beside `process`, it imports nothing else of the server.
"""
