"""Results are known again, whatever they are called, and nothing else is taken for one."""

import numpy as np
import pytest
from PIL import Image

from serving.images.image_io import write_image, write_mask
from serving.inference.marks import mark_of, mark_text, read_mark, read_marked, run_name, source_name

RUN = "0123456789abcdef"


@pytest.mark.parametrize("kind", ["mask", "color", "overlay", "cutout", "confidence", "legend"])
@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_every_kind_of_result_carries_its_run(tmp_path, photo, kind, ending):
    path = tmp_path / f"a{ending}"
    write_image(path, photo(20, 30), mark=mark_text(kind, RUN))
    assert read_mark(str(path)) == RUN
    with Image.open(path) as image:
        assert str(image.info.get("Software", image.info.get("comment"))).find(f"contrail.infer {kind} {RUN}") >= 0


def test_a_mask_is_marked_and_keeps_its_classes(tmp_path):
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4)
    write_mask(tmp_path / "a.png", mask, ((0, 0, 0),) * 12, mark=mark_text("mask", RUN))
    assert read_mark(str(tmp_path / "a.png")) == RUN
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), mask)


def test_what_infer_did_not_write_has_no_mark(tmp_path, photo):
    write_image(tmp_path / "a.png", photo(20, 30))
    (tmp_path / "b.png").write_bytes(b"contrail.infer ")
    (tmp_path / "c.png").write_bytes(b"contrail.infer photo 0123456789abcdef")
    for name in ("a.png", "b.png", "c.png", "gone.png", "."):
        assert read_mark(str(tmp_path / name)) is None
    assert mark_of(b"") is None


@pytest.mark.parametrize("kind", ["confidence", "layer"])
@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_a_result_names_the_state_of_its_source(tmp_path, photo, kind, ending):
    path = str(tmp_path / f"a{ending}")
    write_image(tmp_path / f"a{ending}", photo(20, 30))
    source = source_name(path)
    assert len(source) == 16 and source_name(str(tmp_path / "gone")) == ""
    write_image(tmp_path / f"a{ending}", photo(20, 30), mark=mark_text(kind, RUN, source))
    assert read_marked(path) == (RUN, source) and read_mark(path) == RUN
    write_image(tmp_path / f"a{ending}", photo(20, 30), mark=mark_text(kind, RUN))
    assert read_marked(path)[0] == RUN and read_marked(path)[1] != source


def test_a_run_is_named_by_what_decides_its_results():
    values = {"sha256": "aa", "options": {"threads": 1, "precision": None}, "tile": "a\udce9"}
    assert run_name(values) == run_name(dict(reversed(values.items())))
    assert run_name(values) != run_name({**values, "sha256": "ab"})
    assert len(run_name(values)) == 16
