"""Results come in order, and no more items are taken than are needed."""

import threading

import pytest

from serving.contract.parallel import available_cpus, in_order


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(workers):
    finished = threading.Event()

    def work(number):
        if number == 0 and workers > 1:
            finished.wait(30)  # the first one is the slowest
        elif number == 1:
            finished.set()
        return number * 10

    assert list(in_order(work, range(20), workers=workers)) == [number * 10 for number in range(20)]


@pytest.mark.parametrize(("workers", "ahead"), [(1, None), (2, None), (3, 4)])
def test_items_are_taken_as_they_are_needed(workers, ahead):
    taken = []

    def items():
        for number in range(1000):
            taken.append(number)
            yield number

    results = in_order(lambda number: number, items(), workers=workers, ahead=ahead)
    for expected in range(10):
        assert next(results) == expected
    assert len(taken) <= 10 + (ahead or 2 * workers)
    results.close()
    assert len(taken) < 30


@pytest.mark.parametrize("workers", [1, 3])
def test_what_an_item_raises_is_raised_in_its_turn(workers):
    def work(number):
        if number == 3:
            raise ValueError("three")
        return number

    results = in_order(work, range(100), workers=workers)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_there_is_a_cpu():
    assert available_cpus() >= 1
