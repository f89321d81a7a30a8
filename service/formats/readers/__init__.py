"""Readers of files, one module per format; :mod:`service.formats.readers.opening` tells which reads a file."""
