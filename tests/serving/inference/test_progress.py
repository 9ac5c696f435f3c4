"""A bar on a terminal, a line now and then elsewhere, and messages in between that stay whole."""

import io

import pytest

from serving.inference.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_a_terminal_shows_a_bar_with_rate_and_what_is_left(clock):
    terminal = Terminal()
    progress = Progress(200, terminal)
    clock[0] += 2
    progress.update(50)
    assert (
        terminal.getvalue() == "\r\x1b[K[#######.......................] 50 of 200 images, 25.0 per second, 0:06 left"
    )
    clock[0] += 0.01
    progress.update(51)  # too soon to be drawn again
    assert terminal.getvalue().count("\r") == 1
    progress.say("error: a.jpg")
    assert terminal.getvalue().endswith("left\r\x1b[Kerror: a.jpg\n")


def test_elsewhere_there_is_a_line_every_half_minute(clock):
    stream = io.StringIO()
    progress = Progress(4000, stream)
    for second in range(1, 65):
        clock[0] = 100.0 + second
        progress.update(second)
    assert stream.getvalue() == (
        "30 of 4000 images, 1.0 per second, 1:06:10 left\n60 of 4000 images, 1.0 per second, 1:05:40 left\n"
    )


def test_one_image_is_no_progress(clock):
    terminal = Terminal()
    progress = Progress(1, terminal)
    clock[0] += 60
    progress.update(1)
    progress.clear()
    assert terminal.getvalue() == ""
