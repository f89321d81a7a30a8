"""Data-parallel training of one network: process group, collectives, synchronised batch norm, random generators."""
