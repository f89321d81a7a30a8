"""Runs a job: the supervisor beside the database, and the trainer that knows nothing but a spec, a folder and devices."""
