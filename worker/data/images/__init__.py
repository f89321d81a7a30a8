"""Images as networks read them: one canvas, one range of pixels, and the processors of given networks."""
