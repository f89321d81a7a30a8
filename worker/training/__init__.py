"""Training one network: the loop, its objective, its state, and what happens between two optimizer steps."""
