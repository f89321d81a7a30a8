"""Training one network: the loop, its criteria, its state, and what happens between two optimizer steps."""
