"""What the names of CamVid's frames tell."""

from __future__ import annotations

import pytest

from pipeline.data.datasets.shared.camvid import seconds_of, sequence_of


@pytest.mark.parametrize(
    ("name", "sequence", "seconds"),
    [("0001TP_008550", "0001TP", 285.0), ("Seq05VD_f00030", "Seq05VD", 1.0), ("0016E5_07961", "0016E5", 7961 / 30)],
)
def test_a_name_tells_the_recording_and_the_time(name, sequence, seconds):
    assert sequence_of(name) == sequence
    assert seconds_of(name) == pytest.approx(seconds)


def test_other_names_tell_neither():
    assert sequence_of("street") is None and seconds_of("street") is None
