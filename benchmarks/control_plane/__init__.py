"""How fast the service answers, beside an empty route and Ray's job server: ``python -m benchmarks.control_plane``."""
