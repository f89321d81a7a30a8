"""The first signal stops a command that is armed, each other one only hurries it."""

import signal

import pytest

from service.cli.interrupts import Interrupts

each_signal = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])


@each_signal
def test_the_first_signal_interrupts_and_the_next_hurries(number: signal.Signals) -> None:
    with Interrupts() as interrupts:
        interrupts.arm()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert not interrupts.hurried()
        signal.raise_signal(number)
        assert interrupts.hurried()


@each_signal
def test_a_signal_during_the_shutdown_only_hurries_it_and_the_earlier_handlers_come_back(number: signal.Signals) -> None:
    earlier = signal.getsignal(number)
    with Interrupts() as interrupts:
        interrupts.arm()
        interrupts.disarm()
        signal.raise_signal(number)
        assert interrupts.hurried()
    assert signal.getsignal(number) == earlier
