"""Samples that stay on disk, and the processes that make batches of them ahead of the training."""
