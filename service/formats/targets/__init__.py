"""Targets over all splits of a dataset, one module per kind: checked and counted chunk by chunk, described at the end."""
