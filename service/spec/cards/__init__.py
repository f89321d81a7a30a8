"""The parts of a report card: networks, what they cost, and what shows their worth."""
