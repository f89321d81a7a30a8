"""All that is known about a distillation job, and its HTTP face. Nothing here imports torch."""
