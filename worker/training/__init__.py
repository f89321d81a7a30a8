"""Training one network: the loop, its samples, its state, and what happens between two steps."""
