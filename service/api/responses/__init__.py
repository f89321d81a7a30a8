"""The response and request models of the API: one module a resource."""
