"""Runs jobs: the supervisor, which knows the database, and the trainer, which knows a spec, a folder and devices alone."""
