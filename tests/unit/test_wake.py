"""A wait that ends at once when there is a reason."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from ds_flow.system.wake import CALLED, Wake

LONG_S = 3600.0  # for what is to come; the test's own limit is shorter


@pytest.fixture
def wake() -> Iterator[Wake]:
    made = Wake()
    yield made
    made.close()


def test_nothing_set_is_nothing_seen(wake: Wake) -> None:
    assert not wake.wait(0)
    assert not wake.wait(-1)
    assert not wake.clear()


def test_a_reason_set_before_the_wait_is_seen_once(wake: Wake) -> None:
    wake.set()
    wake.set()

    assert wake.wait(0) == {CALLED}
    assert not wake.wait(0)


def test_another_thread_ends_a_wait(wake: Wake) -> None:
    other = threading.Thread(target=wake.set)
    other.start()

    assert wake.wait(LONG_S)
    other.join()


def test_any_number_of_reasons_neither_blocks_nor_is_lost(wake: Wake) -> None:
    for _ in range(70_000):  # more than a pipe holds
        wake.set()

    assert wake.wait(0)
    assert not wake.wait(0)


def test_a_signal_ends_a_wait(wake: Wake) -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    try:
        threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGUSR1]).start()
        assert wake.wait(LONG_S) == {signal.SIGUSR1}
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGUSR1, before)


def test_no_child_process_inherits_the_pipe(wake: Wake) -> None:
    assert not os.get_inheritable(wake.fileno())
