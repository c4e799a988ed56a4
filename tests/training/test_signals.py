"""Signals are noted, and a second one acts."""

import signal

import pytest

from msa_flax.training.signals import noted_signals


def test_the_first_signal_is_noted_and_the_second_acts():
    before = signal.getsignal(signal.SIGTERM)
    with noted_signals() as received:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert received == [signal.SIGTERM, signal.SIGINT]
    assert signal.getsignal(signal.SIGTERM) == before
