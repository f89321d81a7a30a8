"""What a finished job says of itself: the report card, as JSON and as a page, and the student's model card."""
