"""How networks do: figures, repeats, the report card."""
