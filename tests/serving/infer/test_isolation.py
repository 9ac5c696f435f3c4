"""Serving alone: nothing of training is imported, and a copy of the package runs."""

import subprocess
import sys
from pathlib import Path

from tests.serving.infer.outputs import files

ISOLATED = """
import sys
import time
from serving.infer import main
status = main(sys.argv[1:])
heavy = {"torch", "torchvision", "timm", "yaml", "dvc", "onnx", "scipy", "matplotlib", "rich", "pipeline", "export"}
print(status, sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""


def test_nothing_of_training_is_imported(engine, folder, tmp_path):
    arguments = [str(folder), "--engine", str(engine), "--output", str(tmp_path / "out"), "--overlay", "--legend"]
    done = subprocess.run([sys.executable, "-c", ISOLATED, *arguments], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1:] == ["0 []"], done.stderr


def test_it_runs_from_a_copy_of_serving_alone(engine, folder, tmp_path):
    """Serving ships alone: copied away from the rest, with nothing else of the project on the path."""
    source = Path(sys.modules["serving.infer"].__file__).parent
    alone = tmp_path / "alone"
    for path in source.rglob("*.py"):
        target = alone / "serving" / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    check = "import sys, serving, runpy; assert serving.__file__.startswith(sys.argv[1]), serving.__file__\n"
    check += "sys.argv = ['infer', *sys.argv[2:]]; runpy.run_module('serving.infer', run_name='__main__')"
    arguments = [str(folder / "a.png"), "--engine", str(engine), "--output", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", check, str(alone), *arguments], cwd=alone, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "out") == ["a.png"]
