"""The routes: one module a resource, each with its ``router``. Routes read the request, call the service, build the response."""
