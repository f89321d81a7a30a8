"""The teachers of a job: where they come from, and their outputs, computed once and cached."""
