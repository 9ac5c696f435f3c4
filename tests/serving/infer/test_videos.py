"""Videos among the images: a result for each frame, skipped, marked and told like those of images."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from serving.contract.errors import UserError
from serving.engines.predictor import Predictor
from serving.infer import main
from tests.serving.infer.outputs import files, read_mask, records_of
from tests.serving.videos import write_video


@pytest.fixture
def clip(folder, photo):
    return write_video(folder / "clip.mkv", [photo(32, 48, seed) for seed in range(7)])


@pytest.mark.parametrize("options", [["--threads", "1"], ["--threads", "3"], ["--threads", "2", "--batch", "3"]])
def test_every_frame_gives_what_the_engine_says_of_it_in_order(engine, folder, clip, tmp_path, photo, capsys, options):
    output = tmp_path / "out"
    arguments = [str(folder / "a.png"), str(clip), str(folder / "b.png"), "--engine", str(engine), *options]
    assert main([*arguments, "--output", str(output), "--overlay", "--json"]) == 0
    captured = capsys.readouterr()
    stems = ["a", *(f"clip.{number:06}" for number in range(7)), "b"]
    assert files(output) == sorted(f"{stem}{ending}" for stem in stems for ending in (".png", ".overlay.jpg"))
    records = records_of(captured)
    assert [record.get("frame") for record in records] == [None, *range(7), None]
    assert [record["time_s"] for record in records[1:8]] == pytest.approx([number / 10 for number in range(7)])
    assert {record["path"] for record in records[1:8]} == {str(clip)} and records[3]["timings_ms"]["decode"] > 0
    assert "9 of 9 images in" in captured.err
    with Predictor(engine) as predictor:
        for number in range(7):
            mask = read_mask(output / f"clip.{number:06}.png")
            np.testing.assert_array_equal(mask, predictor.predict(photo(32, 48, number)))


def test_frames_that_are_done_are_skipped(engine, clip, tmp_path, capsys):
    arguments = [str(clip), "--engine", str(engine), "--output", str(tmp_path / "out"), "--skip-existing"]
    assert main(arguments) == 0
    (tmp_path / "out" / "clip.000004.png").unlink()
    capsys.readouterr()
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "1 of 1 images in" in captured.out and "6 skipped, done before" in captured.out
    assert captured.err == ""  # what is there is of this run


def test_a_video_in_a_folder_is_left_out_in_a_line(engine, folder, clip, tmp_path, capsys):
    assert main([str(folder), "--engine", str(engine), "--output", str(tmp_path / "out")]) == 0
    assert "3 of 3 images" in (captured := capsys.readouterr()).out
    assert captured.err == f"note: 1 left out, a video: name it itself, or by a pattern: {clip}\n"


def test_results_beside_the_video_are_not_read_by_the_next_run(engine, clip, folder, tmp_path, capsys):
    assert main([str(clip), "--engine", str(engine), "--output", str(folder)]) == 0
    capsys.readouterr()
    for output in (folder, tmp_path / "out"):
        assert main([str(folder / "clip*"), "--engine", str(engine), "--output", str(output), "--json"]) == 0
        names = {record["path"] for record in records_of(capsys.readouterr()) if record["status"] == "done"}
        assert names == {str(clip)}, output


def test_images_and_videos_never_share_a_result(engine, clip, folder, tmp_path, photo):
    Image.fromarray(photo(8, 8)).save(folder / "clip.bmp")
    both = [str(clip), str(folder / "clip.bmp"), "--engine", str(engine)]
    assert main([*both, "--output", str(tmp_path / "out")]) == 0
    assert files(tmp_path / "out") == ["clip.bmp.png", *(f"clip.mkv.{number:06}.png" for number in range(7))]
    (folder / "clip.bmp").rename(folder / "clip.000003.bmp")
    both[1] = str(folder / "clip.000003.bmp")
    with pytest.raises(UserError, match=r"names clash.*\n.*clip\.000003\.png: .* would be written for a frame of"):
        main([*both, "--output", str(tmp_path / "other")])
    assert not (tmp_path / "other").exists()
    Image.fromarray(photo(8, 8)).save(folder / "clip.000002.png")
    with pytest.raises(UserError, match=r"clip\.000002\.png: .* would be written for a frame of"):
        main([str(clip), str(folder / "clip.000002.png"), "--engine", str(engine), "--output", str(folder)])


def test_bad_videos_cost_a_line_and_no_other_image(engine, folder, clip, tmp_path, capsys):
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 3])
    (folder / "text.mp4").write_bytes(b"no video")
    names = [str(folder / "text.mp4"), str(clip), str(tmp_path / "gone.mp4"), str(folder / "a.png")]
    assert main([*names, "--engine", str(engine), "--output", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert [line.partition(": ")[2].partition(": ")[0] for line in lines] == names[:3]
    assert "not a readable video" in lines[0] and "cut off" in lines[1] and "cannot be read" in lines[2]
    assert {"a.png", "clip.000000.png"} <= set(files(tmp_path / "out"))
    assert str(tmp_path / "out") in captured.out


def test_without_pyav_a_video_costs_a_line_that_names_the_extra(engine, folder, clip, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    arguments = [str(clip), str(folder / "a.png"), "--engine", str(engine), "--output", str(tmp_path / "out")]
    assert main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {clip}: a video needs PyAV; not installed: av; pip install ") and "[video]" in line
    assert files(tmp_path / "out") == ["a.png"]


INTERRUPTED = """
import os, signal, sys
from serving.infer import main
from serving.engines.predictor import Predictor
segment, calls = Predictor.segment, []
def interrupting(self, images):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    return segment(self, images)
Predictor.segment = interrupting
sys.exit(main(sys.argv[1:]))
"""


def test_a_signal_in_the_middle_of_a_video_says_how_to_go_on(engine, tmp_path, photo, capsys):
    clip = write_video(tmp_path / "clip.mkv", [photo(32, 48, seed) for seed in range(40)])
    arguments = [str(clip), "--engine", str(engine), "--output", str(tmp_path / "out"), "--threads", "2"]
    command = [sys.executable, "-c", INTERRUPTED, *arguments, "--batch", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 143
    written = files(tmp_path / "out")
    assert 3 <= len(written) < 40 and written == [f"clip.{number:06}.png" for number in range(len(written))]
    rest = "1 images or videos were not finished; the same command with --skip-existing goes on"
    assert done.stderr == f"error: interrupted, {rest}\n"
    assert main([*arguments, "--skip-existing"]) == 0
    assert f"{len(written)} skipped, done before" in capsys.readouterr().out and len(files(tmp_path / "out")) == 40


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of resident memory as Linux counts it")
def test_memory_does_not_grow_with_the_length_of_a_video(engine, tmp_path, photo):
    peaks = []
    measure = "import pathlib, sys; from serving.infer import main; main(sys.argv[1:]); "
    # Not getrusage: its peak begins with that of the process that started this one.
    measure += "status = pathlib.Path('/proc/self/status').read_text().split(); "
    measure += "print(status[status.index('VmHWM:') + 1], file=sys.stderr)"
    for count in (30, 300):
        frames = [photo(360, 480, seed % 10) for seed in range(count)]
        clip = write_video(tmp_path / f"{count}.mkv", frames, codec="mpeg4", pixel_format="yuv420p")
        arguments = [str(clip), "--engine", str(engine), "--output", str(tmp_path / "out")]
        arguments += ["--threads", "2", "--batch", "1"]  # more at once would take more, for long videos alone
        command = [sys.executable, "-c", measure, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        peaks.append(int(done.stderr.splitlines()[-1]))
    assert peaks[1] < 1.1 * peaks[0], peaks
