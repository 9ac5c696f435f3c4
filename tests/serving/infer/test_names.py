"""What the command reads and where it writes: no image twice, none overwritten, no result read as a photograph."""

import os
import subprocess
import sys

import pytest
from PIL import Image

from serving.contract.errors import UserError
from serving.infer import main
from tests.serving.infer.outputs import files


def test_same_names_get_distinct_files_or_a_clear_error(engine, folder, tmp_path, photo):
    Image.fromarray(photo(8, 8)).save(folder / "a.bmp")
    output = tmp_path / "out"
    assert main([str(folder), "--engine", str(engine), "--output", str(output)]) == 0
    assert files(output) == ["a.bmp.png", "a.png.png", "b.png", "night/a.png"]
    both = [str(folder / "a.png"), str(folder / "night" / "a.png")]
    with pytest.raises(UserError, match=r"names clash, nothing was written.*\n.*a\.png\.png: would be written for"):
        main([*both, "--engine", str(engine), "--output", str(tmp_path / "other")])
    assert not (tmp_path / "other").exists()


def test_no_image_is_overwritten_by_its_mask(engine, folder):
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    for images in ([folder / "a.png"], [folder / "a.png", folder / "b.png"]):
        with pytest.raises(UserError, match=r"a\.png: is an image to read; choose another --output"):
            main([*map(str, images), "--engine", str(engine), "--output", str(folder)])
    link = folder.parent / "link"
    link.symlink_to(folder)
    with pytest.raises(UserError, match="is an image to read"):
        main([str(folder / "a.png"), "--engine", str(engine), "--output", str(link)])
    assert {path: path.read_bytes() for path in folder.rglob("*.png")} == before


def test_results_inside_the_folder_are_not_read_again(engine, folder):
    arguments = [str(folder), "--engine", str(engine), "--output", str(folder / "masks")]
    assert main(arguments) == main(arguments) == 0
    assert files(folder / "masks") == ["a.png", "b.png", "night/a.png"]


def test_one_image_named_twice_is_done_once(engine, folder, tmp_path, capsys):
    assert main([str(folder), str(folder / "a.png"), "--engine", str(engine), "--output", str(tmp_path / "out")]) == 0
    assert "3 of 3 images" in capsys.readouterr().out


def test_results_beside_the_images_are_not_read_by_the_next_run(engine, tmp_path, photo, capsys):
    """The output folder is the image folder, run twice; then a third run reads the folder into another one."""
    root = tmp_path / "photos"
    root.mkdir()
    for seed in range(3):
        Image.fromarray(photo(40, 60, seed)).save(root / f"a{seed}.jpg")
    arguments = [str(root), "--engine", str(engine), "--overlay", "--legend"]
    assert main([*arguments, "--output", str(root)]) == 0
    once = files(root)
    assert len(once) == 3 + 3 + 3 + 1
    capsys.readouterr()
    assert main([*arguments, "--output", str(root)]) == 0
    captured = capsys.readouterr()
    assert files(root) == once and "3 of 3 images" in captured.out
    assert "note: 7 left out, a result of an earlier run: " in captured.err
    (root / "a1.jpg").unlink()
    (root / "a2.jpg").unlink()
    (root / "a2.overlay.jpg").unlink()
    (root / "a2.png").rename(root / "lonely.png")  # nothing in its name tells a result, only what is in it
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 0
    assert files(tmp_path / "out") == ["a0.overlay.jpg", "a0.png", "legend.png"]
    captured = capsys.readouterr()
    assert "1 of 1 images" in captured.out
    assert f"note: 1 left out, a result of an earlier run: {root}/lonely.png" in captured.err


def test_results_of_another_run_are_named(engine, folder, tmp_path, capsys):
    output = tmp_path / "out"
    arguments = [str(folder), "--engine", str(engine), "--output", str(output)]
    assert main([*arguments, "--overlay"]) == 0
    (folder / "b.png").unlink()
    (folder / "a.png").write_bytes(b"damaged")
    capsys.readouterr()
    assert main([*arguments, "--option", "optimization=basic"]) == 1
    error = capsys.readouterr().err
    assert "note: 4 results of an earlier run are in" in error and "not of this one" in error
    assert f"({output / 'a.png'}: still there, of an earlier run)" in error
    # The same engine and settings: what stands there is what would be written.
    (output / "b.png").unlink()
    for path in output.rglob("*.overlay.jpg"):
        path.unlink()
    assert main([*arguments, "--option", "optimization=basic"]) == 1
    assert "not of this one" not in capsys.readouterr().err


def test_links_and_names_of_all_kinds_give_a_result_each(engine, tmp_path, photo, capsys):
    root, store = tmp_path / "photos", tmp_path / "store"
    for folder in (root, store / "day2"):
        folder.mkdir(parents=True)
    for seed, name in enumerate(["here.jpg", "é.png", "e\u0301.png", "new\nline.png"]):
        Image.fromarray(photo(16, 24, seed)).save(root / name)
    Image.fromarray(photo(16, 24, 9)).save(store / "1f00", "PNG")
    Image.fromarray(photo(16, 24, 8)).save(store / "day2" / "d.jpg")
    (root / "b.jpg").symlink_to(store / "1f00")
    (root / "c.jpg").symlink_to(store / "1f00")
    (root / "day2").symlink_to(store / "day2")
    Image.fromarray(photo(16, 24, 7)).save(root / "x.jpg")
    (root / "x.jpg").rename(root / "caf\udce9.jpg")
    (root / "bad\udcff\x1b[31m.jpg").write_bytes(b"no image")
    (root / "left.txt").touch()
    command = [
        sys.executable,
        "-m",
        "serving.infer",
        str(root),
        "--engine",
        str(engine),
        "--output",
        str(tmp_path / "o\udce9"),
    ]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, timeout=120, env=environment)
    assert done.returncode == 1
    assert done.stdout.startswith(b"8 of 9 images in ") and b"o\\xe9" in done.stdout
    note, error = done.stderr.decode("ascii").splitlines()
    assert note == f"note: 1 left out, no image (.txt): {root}/left.txt"
    assert error.startswith(f"error: {root}/bad\\xff\\x1b[31m.jpg: a file that starts with")
    expected = ["b.png", "c.png", "caf\udce9.png", "day2/d.png", "e\u0301.png", "here.png", "new\nline.png", "é.png"]
    assert files(tmp_path / "o\udce9") == expected


def test_formats_lists_and_patterns_go_together(engine, folder, tmp_path, capsys):
    (tmp_path / "list.txt").write_text(f"{folder / 'night' / 'a.png'}\n")
    arguments = [str(folder / "?.png"), "--list", str(tmp_path / "list.txt"), "--engine", str(engine)]
    with pytest.raises(UserError, match="names clash"):  # the list's only image is a.png as well
        main([*arguments, "--output", str(tmp_path / "out")])
    (tmp_path / "list.txt").write_text(f"{folder / 'night' / 'a.png'}\n{folder / 'b.png'}\n")
    arguments += ["--format", "color,cutout", "--cutout", "green", "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    names = [f"{name}{ending}" for name in ("a", "b", "night/a") for ending in (".color.png", ".cutout.png")]
    assert files(tmp_path / "out") == sorted(names)
    with pytest.raises(UserError, match="--cutout: no class pink; the engine has red, green, blue"):
        main([*arguments[:-4], "--cutout", "pink", "--output", str(tmp_path / "out")])
