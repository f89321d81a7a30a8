"""Faults: the service under what happens to machines, networks, disks and clocks, with people who go on using it.

``make faults`` runs it for long, ``make test`` for a few faults. ``promise`` says what must hold afterwards, ``faults`` what goes
wrong, ``people`` who uses the service meanwhile, ``cluster`` what runs; ``run`` puts them together.
"""
