"""What one network costs to run, on the job's device."""

from service.spec.cards.card import Card


class BatchSpeed(Card):
    """Forward passes of batches of one size, from inputs that are on the device."""

    batch: int
    """Samples at once."""
    rounds: int
    """Passes that were timed, one of each network in turns."""
    p50_ms: float
    """Median milliseconds."""
    p95_ms: float
    """95 % of the passes took no longer."""
    samples_per_second: float
    """By the median."""


class SpeedCard(Card):
    """Latency, throughput, memory and operations."""

    batches: list[BatchSpeed]
    """By size, upwards."""
    best_batch: int
    """That of them with the most samples per second."""
    flops: int | None
    """Floating-point operations of a forward pass of one sample: of matrix products, convolutions and attention, a multiplication
    and an addition counted as two; of texts, of one of the first test samples. Null for weights of integers."""
    weight_bytes: int
    """Of its parameters and buffers, in memory."""
    peak_bytes: int
    """Most bytes of tensors in a forward pass of one sample, weights included."""
    peak_bytes_best_batch: int
    """The same of the best batch."""

    def of(self, batch: int) -> BatchSpeed:
        """That of one size of batches, 1 or the best, which are always there."""
        return next(each for each in self.batches if each.batch == batch)
