"""What the API answers, typed: one module a resource."""
