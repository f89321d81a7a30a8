"""The routes: one module a resource, each with its ``router``. They read a request, call what knows, and shape the answer."""
