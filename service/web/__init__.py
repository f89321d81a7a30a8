"""Pages for people, as text: templates, their filters, the files that they load. Nothing here reads the database."""
