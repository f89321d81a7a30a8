"""The HTTP API: ``app`` creates the application, ``routes`` has one router a resource, ``responses`` the response models."""
