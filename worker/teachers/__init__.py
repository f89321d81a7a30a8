"""Who teaches, what they are asked, and what a student is taught by."""
