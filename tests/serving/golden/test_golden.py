"""Golden files come back as they were written, the same bytes every time, and a changed one is refused."""

import dataclasses
import json

import numpy as np
import pytest

from serving.contract.errors import UserError
from serving.contract.files import file_sha256
from serving.golden.golden import MAX_BYTES, Golden, GoldenInput, golden_folder, read_latencies


def test_what_was_written_is_read(sound):
    golden = Golden.load(golden_folder(sound))
    assert golden.engine_sha256 == file_sha256(sound)
    assert [each.name for each in golden.inputs] == ["crop 1", "crop 2", "noise", "odd"]
    for each in golden.inputs:
        assert each.image.shape == (*each.mask.shape, 3) and each.margin.dtype == np.float16
    assert [(run.runtime, run.precision, run.logit_error) for run in golden.lab] == [
        ("onnxruntime", "fp32", 1e-5),
        ("openvino", "fp32", 1e-5),
    ]
    np.testing.assert_array_equal(golden.lab[1].masks[3], golden.inputs[3].mask)


def test_equal_content_gives_equal_bytes(sound, tmp_path):
    golden = Golden.load(golden_folder(sound))
    golden.save(tmp_path / "again")
    for name in ("golden.npz", "golden.json"):
        assert (tmp_path / "again" / name).read_bytes() == (golden_folder(sound) / name).read_bytes()


def test_they_stay_under_a_megabyte_at_the_largest_and_more_is_refused(sound, tmp_path):
    generator = np.random.default_rng(0)

    def noise(side):
        mask = generator.integers(0, 19, (side, side), np.uint8)
        margin = generator.random((side, side)).astype(np.float16)
        return GoldenInput("x", generator.integers(0, 256, (side, side, 3), np.uint8), mask, margin)

    lab = Golden.load(golden_folder(sound)).lab[0]
    crops = [noise(256), noise(256)]
    masks = (np.zeros((256, 256), np.uint8),) * 2
    small = Golden("0" * 64, tuple(crops), (dataclasses.replace(lab, masks=masks),))
    small.save(tmp_path / "small")
    assert sum(path.stat().st_size for path in (tmp_path / "small").iterdir()) < MAX_BYTES
    with pytest.raises(ValueError, match="expected less than 1000000"):
        dataclasses.replace(small, inputs=(*crops, noise(512))).save(tmp_path / "large")
    assert not (tmp_path / "large").exists()


def damage_archive(folder):
    content = bytearray((folder / "golden.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "golden.npz").write_bytes(content)


def cut_archive(folder):
    (folder / "golden.npz").write_bytes((folder / "golden.npz").read_bytes()[:-100])


def edit(**changes):
    def change(folder):
        values = json.loads((folder / "golden.json").read_text())
        values.update(changes)
        (folder / "golden.json").write_text(json.dumps(values))

    return change


def of_the_lab(**changes):
    def change(folder):
        values = json.loads((folder / "golden.json").read_text())
        values["lab"][1].update(changes)
        (folder / "golden.json").write_text(json.dumps(values))

    return change


def with_arrays(**changes):
    """With other arrays, consistently."""

    def change(folder):
        golden = Golden.load(folder)
        dataclasses.replace(golden, inputs=(dataclasses.replace(golden.inputs[0], **changes),)).save(folder)

    return change


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (of_the_lab(max_disagreement=float("nan")), r"lab\[1\]\.max_disagreement: expected a finite number"),
        (of_the_lab(max_disagreement=1.5), r"lab\[1\]\.max_disagreement: expected in"),
        (of_the_lab(logit_error=float("inf")), r"lab\[1\]\.logit_error: expected a finite number"),
        (of_the_lab(largest_logit=float("nan")), r"lab\[1\]\.largest_logit: expected a finite number"),
        (of_the_lab(logit_error=-1.0), r"lab\[1\]\.logit_error: expected at least 0"),
        (with_arrays(margin=np.full((96, 128), np.nan, np.float16)), "margins of float16 that are numbers"),
        (with_arrays(margin=np.full((96, 128), "x")), "margins of float16 that are numbers"),
        (with_arrays(mask=np.zeros((96, 128))), "expected a mask of uint8"),
        (damage_archive, "golden.npz is not the file that golden.json names"),
        (cut_archive, "golden.npz is not the file that golden.json names"),
        (edit(schema=9), "expected schema 1"),
        (edit(inputs=["a"] * 9), "not readable"),
        (edit(lab=[]), "no inputs, or no run of the lab"),
        (edit(lab=[{"runtime": "onnxruntime"}]), r"lab\[0\]\.precision: missing"),
        (lambda folder: (folder / "golden.json").write_text("{"), "not readable"),
        (lambda folder: (folder / "golden.json").write_text("[]"), "not readable"),
        (lambda folder: (folder / "golden.json").unlink(), "no golden.json there; export puts it beside an engine"),
        (lambda folder: (folder / "golden.npz").unlink(), "no golden.npz there; export puts it beside an engine"),
    ],
)
def test_what_was_changed_is_refused_in_one_line(sound, damage, expected):
    damage(golden_folder(sound))
    with pytest.raises(UserError, match=expected) as caught:
        Golden.load(golden_folder(sound))
    assert "\n" not in str(caught.value)


def test_latencies_are_read_where_they_are_kept(tmp_path):
    assert read_latencies(tmp_path) == {}
    (tmp_path / "latency.json").write_text('{"onnxruntime fp32": 12.5}')
    assert read_latencies(tmp_path) == {"onnxruntime fp32": 12.5}
    (tmp_path / "latency.json").write_text("[1]")
    assert read_latencies(tmp_path) == {}
