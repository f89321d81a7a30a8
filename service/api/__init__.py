"""The HTTP face: ``app`` puts it together, ``routes`` has one router a resource, ``responses`` what each answer looks like."""
