"""The host's side of a worker: it claims jobs, supervises trainers, records what they emit. Knows the database, no torch."""
