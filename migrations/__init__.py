"""Alembic migrations of the service's database; ``stillhouse migrate`` runs them."""
