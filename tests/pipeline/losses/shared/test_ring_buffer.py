"""Ring buffers per class, against one deque per class."""

from __future__ import annotations

from collections import deque

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.losses.shared.ring_buffer import ClassRings


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    classes=st.integers(1, 4),
    groups=st.integers(1, 3),
    most=st.integers(1, 4),
    writes=st.integers(1, 6),
    seed=st.integers(0, 2**16),
)
def test_holds_exactly_the_newest_rows(sizes, classes, groups, most, writes, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    rings = ClassRings(sizes, classes, 1)
    expected = [[deque(maxlen=size) for _ in range(classes)] for size in sizes]
    number = 0
    for _ in range(writes):
        ring = int(torch.randint(0, 2, (), generator=generator))
        counts = torch.randint(0, most + 1, (groups, classes), generator=generator)
        rows = torch.full((groups, classes, most, 1), torch.nan)  # what is not counted must never arrive
        for group in range(groups):
            for label in range(classes):
                for rank in range(int(counts[group, label])):
                    number += 1
                    rows[group, label, rank] = number
                    expected[ring][label].append(number)
        rings.write(ring, rows, counts)
        valid = rings.valid()
        start = 0
        for index, size in enumerate(sizes):
            section = slice(start, start + size)
            for label in range(classes):
                held = rings.rows[section][valid[section, label], label, 0]
                assert sorted(held.tolist()) == sorted(expected[index][label])
            start += size
    slots = sum(sizes) * classes
    assert rings.fill().item() == (0 if slots == 0 else torch.tensor(int(rings.count.sum()) / slots).item())


def test_the_pointer_advances_by_the_rows_written_and_wraps() -> None:
    rings = ClassRings((5,), 2, 1)
    for first, last in ((1, 3), (4, 6)):  # three rows of class 0 twice, none of class 1
        rows = torch.arange(first, last + 1.0)[None, None, :, None].expand(1, 2, 3, 1)
        rings.write(0, rows, torch.tensor([[3, 0]]))
        assert rings.pointer.tolist() == [[last % 5, 0]]
    assert rings.rows[:, 0, 0].tolist() == [6, 2, 3, 4, 5]  # the oldest row, 1, has made room
    assert rings.rows[:, 1].eq(0).all()
    assert rings.valid().sum(0).tolist() == [5, 0]
