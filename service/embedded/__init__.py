"""The whole service as one process tree on one machine: PostgreSQL and Valkey from their wheels, the API, a worker.

It is the production stack with servers of its own, not an imitation of it. Nothing here outlives the process that started it.
"""
