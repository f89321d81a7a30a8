"""The whole service as one process tree on one machine: PostgreSQL and Valkey from their wheels, the API, a worker.

It is the production stack with its own servers, not an imitation. No child process outlives the process that started it.
"""
