"""Two results are never one file, no image is overwritten, no result is read, and planning takes no time."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.contract.errors import UserError
from serving.images.image_io import write_image, write_mask
from serving.images.listing import ListedImage, list_images
from serving.inference import planning
from serving.inference.marks import ENDINGS, mark_text
from serving.inference.planning import plan, results_of_other_runs

ALL = tuple(ENDINGS.values())
MASK = (ENDINGS["mask"],)
BOTH = (ENDINGS["mask"], ENDINGS["overlay"])


@pytest.fixture
def photos(tmp_path, photo):
    def build(*names, below="photos"):
        for seed, name in enumerate(names):
            path = tmp_path / below / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(photo(9, 11, seed)).save(path, "PNG")
        return str(tmp_path / below)

    return build


def named(*names, folder="/photos"):
    return [ListedImage(f"{folder}/{name}", name, folder) for name in names]


def write_result(path, kind="mask", run="0123456789abcdef"):
    pixels = np.zeros((4, 5), np.uint8)
    if kind == "mask":
        write_mask(path, pixels, ((1, 2, 3),), mark=mark_text(kind, run))
    else:
        write_image(path, pixels, mark=mark_text(kind, run))


def masks(planned):
    return [f"{job.stem}.png" for job in planned.jobs]


def test_results_keep_the_tree_and_only_names_that_clash_keep_their_ending(tmp_path):
    planned = plan(named("a.jpg", "a.bmp", "b.png", "night/a.jpg", "c"), "out", endings=MASK)
    assert masks(planned) == ["out/a.jpg.png", "out/a.bmp.png", "out/b.png", "out/night/a.png", "out/c.png"]


def test_names_that_clash_with_kept_endings_keep_theirs_too():
    planned = plan(named("a.jpg", "a.bmp", "a.jpg.tif", "a.color.jpg"), "out", endings=(".png", ".color.png"))
    results = [job.stem + ending for job in planned.jobs for ending in (".png", ".color.png")]
    assert len(set(results)) == 8
    assert "out/a.jpg.tif.png" in results


def test_overlays_and_legends_take_part(tmp_path):
    images = named("a.png", "a.overlay.jpg", "legend.jpg")
    legend = str(tmp_path / "out" / "legend.png")
    with pytest.raises(UserError, match=r"legend\.png: would be written for the legend and for /photos/legend\.jpg"):
        plan(images, str(tmp_path / "out"), endings=ALL, legend=legend)
    jobs = plan(images, str(tmp_path / "out"), endings=ALL).jobs
    assert len({job.stem + ending for job in jobs for ending in ALL}) == 15


def test_equal_names_of_two_folders_are_refused_all_at_once():
    images = named("a.png", "b.png") + named("a.png", "b.png", folder="/others")
    with pytest.raises(UserError) as caught:
        plan(images, "out", endings=MASK)
    assert "out/a.png.png: would be written for /photos/a.png and for /others/a.png" in str(caught.value)
    assert "out/b.png.png" in str(caught.value)


def test_names_that_only_some_file_systems_tell_apart_are_refused_there(tmp_path, monkeypatch):
    images = named("a.png", "A.png", "\u00e9.png", "e\u0301.png")
    assert len(plan(images, str(tmp_path / "out"), endings=MASK).jobs) == 4
    monkeypatch.setattr(planning, "_tells_names_apart", lambda _: False)
    with pytest.raises(UserError) as caught:
        plan(images, str(tmp_path / "out"), endings=MASK)
    assert str(caught.value).count("would be written for") == 2


def test_this_file_system_is_asked_and_nothing_is_left_of_the_question(tmp_path):
    assert planning._tells_names_apart(str(tmp_path / "not" / "yet" / "there"))
    assert list(tmp_path.iterdir()) == []


def test_no_image_is_overwritten_through_whatever_name(photos, tmp_path):
    root, store = photos("a.png"), photos("x.png", below="store")
    Path(root, "b.png").symlink_to(f"{store}/x.png")
    (tmp_path / "again").symlink_to(root)
    for output, images, name in (
        (root, [f"{root}/a.png"], "a.png"),
        (str(tmp_path / "again"), [f"{root}/a.png"], "a.png"),
        (store, [root], None),  # b.png: written beside what the link leads to, not over it
    ):
        listing = list_images(images, results=output)
        if name is None:
            plan(listing.images, output, endings=MASK)
            continue
        with pytest.raises(UserError, match=f"{name}: is an image to read; choose another --output"):
            plan(listing.images, output, endings=MASK)
    Path(root, "x.png").symlink_to(f"{store}/x.png")
    with pytest.raises(UserError, match=r"store/x\.png: is an image to read"):
        plan(list_images([root]).images, store, endings=MASK)


def test_results_among_the_images_are_left_out(photos):
    """The output folder is the image folder, and this is the second run."""
    root = photos("a.jpg", "night/b.jpg", "c.bmp")
    for name in ("a.png", "night/b.png", "a.color.png", "c.bmp.png"):
        write_result(Path(root, name))
    write_result(Path(root, "a.overlay.jpg"), "overlay")
    planned = plan(list_images([root], results=root).images, root, endings=BOTH)
    assert [job.image.relative for job in planned.jobs] == ["a.jpg", "c.bmp", "night/b.jpg"]
    assert sorted(path.removeprefix(root + "/") for path, _ in planned.left_out) == [
        *("a.color.png", "a.overlay.jpg", "a.png", "c.bmp.png", "night/b.png")
    ]


def test_an_image_that_merely_has_a_namesake_is_read(photos):
    root = photos("a.jpg", "a.png", "a.overlay.jpg")
    planned = plan(list_images([root]).images, "out", endings=MASK)
    assert len(planned.jobs) == 3 and planned.left_out == []


def test_a_result_where_a_result_goes_is_overwritten_and_not_read(photos):
    root = photos("x.jpg")
    write_result(Path(root, "legend.png"), "legend")
    write_result(Path(root, "other.bmp.png"))
    images = [*list_images([root]).images, ListedImage("/else/other.bmp", "other.bmp", "/else")]
    images.append(ListedImage("/else/other.tif", "other.tif", "/else"))
    planned = plan(images, root, endings=MASK, legend=f"{root}/legend.png")
    assert [job.image.relative for job in planned.jobs] == ["x.jpg", "other.bmp", "other.tif"]
    assert [path for path, _ in planned.left_out] == [f"{root}/legend.png", f"{root}/other.bmp.png"]


def test_results_of_other_runs_are_found_in_a_folder_of_results(photos, tmp_path):
    root, out = photos("a.jpg"), tmp_path / "out"
    for name in ("a.png", "gone.png", "old/gone.png"):
        write_result(out / name)
    write_result(out / "a.overlay.jpg", "overlay")
    Image.new("L", (3, 3)).save(out / "chart.png")  # somebody else's
    jobs = plan(list_images([root]).images, str(out), endings=MASK).jobs
    found = results_of_other_runs(jobs, str(out), endings=MASK)
    assert [os.path.relpath(path, out) for path in found] == ["a.overlay.jpg", "gone.png", "old/gone.png"]
    assert results_of_other_runs(jobs, str(tmp_path / "new"), endings=MASK) == []


def test_a_folder_that_holds_the_images_is_not_searched_as_a_whole(photos, tmp_path):
    root = photos("a.jpg")
    for name in ("elsewhere/deep/old.png", "stale.png"):
        write_result(tmp_path / name)
    jobs = plan(list_images([root]).images, str(tmp_path), endings=MASK).jobs
    assert results_of_other_runs(jobs, str(tmp_path), endings=MASK) == [f"{tmp_path}/stale.png"]


def test_the_time_grows_with_the_number_of_names_and_not_with_its_square(tmp_path):
    def seconds(count):
        root = tmp_path / str(count)
        root.mkdir()
        for index in range(count):
            (root / f"image_{index:06}.jpg").touch()
        taken = []
        for _ in range(3):
            start = time.process_time()
            listing = list_images([str(root)], results=str(tmp_path / "out"))
            jobs = plan(listing.images, str(tmp_path / "out"), endings=BOTH).jobs
            results_of_other_runs(jobs, str(tmp_path / "out"), endings=BOTH)
            taken.append(time.process_time() - start)
            assert len(jobs) == count
        return min(taken)

    small, large = seconds(1000), seconds(16000)
    assert large < 80 * small, (small, large)  # 16 times as many: linear gives 16, quadratic 256
