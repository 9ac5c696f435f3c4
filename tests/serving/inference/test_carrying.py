"""What becomes of images on their way: batches hold equal sizes, one that fails costs no other, records tell all."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from serving.contract.errors import UserError
from serving.engines.predictor import Predictor
from serving.images.listing import list_images
from serving.inference.carrying import Carrier, chunks, faster_batch
from serving.inference.kinds import chosen_kinds
from serving.inference.marks import read_mark
from serving.inference.planning import plan
from serving.inference.results import ResultWriter

RUN = "0123456789abcdef"


@pytest.fixture
def predictor(engine):
    with Predictor(engine, options={"threads": 1}) as opened:
        yield opened


@pytest.fixture
def carry(tmp_path, photo, predictor, manifest):
    """Carries images of the given sizes; returns the records."""

    def run(*sizes, text="mask,color,cutout,overlay", **settings):
        for seed, (name, height, width) in enumerate(sizes):
            path = tmp_path / "photos" / f"{name}.png"
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(photo(height, width, seed)).save(path)
        kinds = chosen_kinds(text, overlay=False, confidence=False, manifest=manifest)
        listing = list_images([str(tmp_path / "photos")])
        jobs = plan(listing.images, str(tmp_path / "out"), endings=list(kinds.values())).jobs
        run = settings.pop("run", RUN)
        writer = ResultWriter(manifest, kinds, run, cutout_classes=(1, 2))
        return Carrier(predictor, writer, **settings).carry(jobs), writer

    return run


def test_a_batch_of_several_sizes_gives_every_image_its_results(carry, predictor, photo, tmp_path):
    sizes = [("a", 40, 60), ("b", 40, 60), ("c", 33, 20), ("d", 40, 60)]
    records, writer = carry(*sizes, areas=True)
    assert [record.status for record in records] == ["done"] * 4
    for seed, (record, (_, height, width)) in enumerate(zip(records, sizes, strict=True)):
        image = photo(height, width, seed)
        mask = predictor.predict(image)
        assert (record.height, record.width) == (height, width)
        assert record.areas == np.bincount(mask.ravel(), minlength=3).tolist()
        paths = writer.paths(record.job)
        np.testing.assert_array_equal(np.asarray(Image.open(paths["mask"])), mask)
        np.testing.assert_array_equal(
            np.asarray(Image.open(paths["color"]))[mask == 1], [[0, 200, 0]] * (mask == 1).sum()
        )
        cutout = np.asarray(Image.open(paths["cutout"]))
        np.testing.assert_array_equal(cutout[..., 3], np.where(mask > 0, 255, 0))
        np.testing.assert_array_equal(cutout[..., :3], image)
        assert all(read_mark(path) == RUN for path in paths.values())
        assert set(record.timings_ms) == {"decode", "preprocess", "engine", "postprocess", "encode"}


def test_records_say_in_json_what_is_known(carry):
    (record,), writer = carry(("a", 10, 20), text="mask", areas=True)
    values = json.loads(json.dumps(record.to_json(writer, "ab")))
    assert values["path"].endswith("photos/a.png") and values["status"] == "done"
    assert values["results"] == {"mask": record.job.stem + ".png"}
    assert (values["height"], values["width"], values["engine_sha256"]) == (10, 20, "ab")
    assert set(values["areas"]) == {"red", "green", "blue"} and abs(sum(values["areas"].values()) - 1) < 1e-5
    assert values["timings_ms"]["engine"] > 0


def test_an_image_that_the_engine_fails_on_costs_no_other_of_its_batch(carry, predictor, monkeypatch):
    infer = predictor.runtime.infer

    def fails_on_white(batch):
        if (batch == 255).all(axis=(1, 2, 3)).any():
            raise UserError("the engine does not like white")
        return infer(batch)

    monkeypatch.setattr(predictor.runtime, "infer", fails_on_white)
    carry(("a", 32, 32), ("b", 32, 32), ("c", 32, 32))
    folder = next(iter(carry(("a", 32, 32))[0])).job.image.folder
    Image.new("RGB", (32, 32), "white").save(f"{folder}/b.png")
    records, _ = carry(("a", 32, 32))
    assert [record.status for record in records] == ["done", "failed", "done"]
    assert records[1].by_engine and "the engine does not like white" in records[1].problem
    assert records[1].problem.startswith(f"{folder}/b.png: ")


def test_what_was_done_is_skipped_and_what_changed_is_done_again(carry, tmp_path):
    sizes = [("a", 10, 20), ("b", 10, 20)]

    def statuses(**settings):
        return [record.status for record in carry(*sizes, text="mask", **settings)[0]]

    assert statuses() == ["done", "done"]
    assert statuses(skip_existing=True) == ["skipped", "skipped"]
    assert statuses(skip_existing=True, run="f" * 16) == ["done", "done"]  # another engine, or other settings
    assert statuses(skip_existing=True, run="f" * 16) == ["skipped", "skipped"]
    (tmp_path / "out" / "a.png").unlink()
    later = (tmp_path / "out" / "b.png").stat().st_mtime + 5
    os.utime(tmp_path / "photos" / "b.png", (later, later))  # the image is newer than its mask
    assert statuses(skip_existing=True, run="f" * 16) == ["done", "done"]
    Image.new("L", (20, 10)).save(tmp_path / "out" / "a.png")  # somebody else's
    assert statuses(skip_existing=True, run="f" * 16)[0] == "done"


@pytest.mark.parametrize("moved", ["file", "folder"])
def test_another_photograph_in_the_same_place_is_done_though_its_time_is_older_than_the_mask(carry, tmp_path, moved):
    carry(("a", 10, 20), text="mask")
    photos, other = tmp_path / "photos", tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (20, 10), "green").save(other / "a.png")
    os.utime(other / "a.png", (1_000_000_000, 1_000_000_000))  # as `cp -p`, `mv`, `rsync -a` and archives keep it
    if moved == "file":
        (other / "a.png").replace(photos / "a.png")
    else:
        photos.rename(tmp_path / "old")
        other.rename(photos)
    (record,), _ = carry(("a", 10, 20), text="mask", skip_existing=True)
    assert record.status == "done"
    (record,), _ = carry(("a", 10, 20), text="mask", skip_existing=True)
    assert record.status == "skipped"


def test_the_mask_of_another_photograph_is_named_where_the_one_in_its_place_fails(carry, tmp_path):
    carry(("a", 10, 20), text="mask")
    (tmp_path / "photos" / "a.png").write_bytes(b"no image")
    (record,), _ = carry(("a", 10, 20), text="mask")
    assert f"({tmp_path}/out/a.png: still there, of an earlier run)" in record.problem


def test_results_of_earlier_runs_and_bad_images_are_told_apart(carry, tmp_path):
    carry(("a", 10, 20), text="mask")
    (tmp_path / "out" / "a.png").rename(tmp_path / "photos" / "moved.png")
    (tmp_path / "photos" / "bad.png").write_bytes(b"no image")
    records, _ = carry(("a", 10, 20), text="mask", max_pixels=199)
    assert {record.job.image.relative: record.status for record in records} == {
        "a.png": "failed",
        "bad.png": "failed",
        "moved.png": "left out",
    }
    assert "10x20 pixels; at most 199" in records[0].problem.replace("20x10", "10x20")


def test_chunks_keep_the_order_and_lose_nothing():
    assert list(chunks("abcdefg", 3)) == [["a", "b", "c"], ["d", "e", "f"], ["g"]]


@pytest.mark.parametrize(("per_image", "per_call", "expected"), [(1.0, 10.0, 4), (10.0, 0.0, 1)])
def test_images_run_together_where_that_is_measured_to_be_faster(
    predictor, carry, monkeypatch, per_image, per_call, expected
):
    """A clock that counts what an engine would take: so much for each image and so much for each call."""
    (record,), _ = carry(("a", 10, 20), text="mask")
    now = [0.0]
    segment = predictor.segment

    def timed(images):
        now[0] += per_call + per_image * len(images)
        return segment(images)

    monkeypatch.setattr(predictor, "segment", timed)
    monkeypatch.setattr("time.perf_counter_ns", lambda: int(now[0] * 1e6))
    assert faster_batch(predictor, [record.job], 10_000) == expected


def test_an_engine_of_a_fixed_batch_gets_it_full(predictor, carry, monkeypatch):
    (record,), _ = carry(("a", 10, 20), text="mask")
    monkeypatch.setattr(predictor.runtime, "batch_range", (8, 8))
    assert faster_batch(predictor, [record.job], 10_000) == 8
    monkeypatch.setattr(predictor.runtime, "batch_range", (1, 1))
    assert faster_batch(predictor, [record.job], 10_000) == 1
