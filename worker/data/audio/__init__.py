"""Sound as networks read it: clips of one rate and length, as waveforms or log-mel spectrograms."""
