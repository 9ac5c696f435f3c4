"""The first signal is noted, the second one ends the run, and afterwards all is as before."""

import os
import signal
import threading

import pytest

from serving.inference.interruption import Interruption


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_is_noted_and_the_second_interrupts(number, status):
    before = signal.getsignal(number)
    with Interruption() as interruption:
        assert interruption.exit_status is None
        os.kill(os.getpid(), number)
        assert interruption.number == number and interruption.exit_status == status
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(number) is before


def test_another_thread_than_the_main_one_may_run_it():
    noted = []

    def run():
        with Interruption() as interruption:
            noted.append(interruption.number)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert noted == [None]
