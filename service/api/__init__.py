"""The HTTP face: ``app`` puts it together, ``routes`` has one router a resource, ``views`` what each answer looks like."""
