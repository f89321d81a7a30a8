"""Where networks that exist are fetched from, as folders; without torch, which a host does not load."""
