"""The routes: one module a resource, each with its ``router``. A route reads the request, calls the service, builds the response."""
