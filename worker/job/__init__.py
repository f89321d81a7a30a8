"""One attempt at one job, from the spec to the result folder, in a trainer's process."""
