"""What the commands say is what a reader needs: a log without bars, a next command that works, a script that explains itself."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from tests.helpers.project import ROOT
from tests.helpers.sets import make_set

PLUGIN = """
from models.common import Conv
from models.plugins import register_block


@register_block
class MyConv(Conv):
    pass
"""
# the Python of the README at a fraction of its size, its processes started as on macOS and Windows
SCRIPT = """
import multiprocessing, sys
sys.path.insert(0, {root!r})
import train, val

tiny = dict(imgsz=64, workers=1, device="cpu", data="the set/data.yaml", project="mine")
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    folder = train.run(**tiny, epochs=1, cfg="yolov5n.yaml", batch_size=4, noplots=True)
    print(val.run(**tiny, weights=[folder / "weights/best.pt"]).map50_95)
"""
TINY = "--imgsz 64 --batch-size 4 --epochs 2 --workers 0 --device cpu --noplots".split()


def run_line(line: str, cwd: Path) -> subprocess.CompletedProcess:
    """A line as it is typed: by the shell, with the python of these tests as python; both streams in one, as in a log."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
    return subprocess.run(line, shell=True, cwd=cwd, env=environment, text=True, timeout=300, **streams)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, str]:
    """A folder that is not the project's, and the log of a training in it: with a block of the user's, in names with spaces."""
    here = tmp_path_factory.mktemp("my work")
    data = make_set(here / "the set", train=8, val=4)
    (here / "my blocks.py").write_text(PLUGIN)
    stock = (ROOT / "models" / "yolov5n.yaml").read_text()
    (here / "mine.yaml").write_text(stock.replace("Conv, [64, 6, 2, 2]", "MyConv, [64, 6, 2, 2]"))
    flags = ["--data", str(data), "--cfg", "mine.yaml", "--plugins", "my blocks.py", "--project", "my runs"]
    result = run_line(shlex.join(["python", str(ROOT / "train.py"), *flags, *TINY]), here)
    assert result.returncode == 0, result.stdout
    return here, result.stdout


def test_an_epoch_is_four_lines_of_a_log(trained):
    """Its heading, the finished bar behind the same columns, and the two lines of its validation."""
    lines = trained[1].splitlines()
    assert "\r" not in trained[1]
    headings = [i for i, line in enumerate(lines) if line.split()[:2] == ["Epoch", "GPU_mem"]]
    assert len(headings) == 2
    for epoch, i in enumerate(headings):
        heading, figures, checked, every = lines[i : i + 4]
        words = re.fullmatch(r"(.{77}): 100%\|.{10}\| 2/2 \[.*\]", figures).group(1).split()
        assert len(words) == len(heading.split()) == 7
        assert (words[0], words[1], words[6]) == (f"{epoch}/1", "0G", "64") and float(words[2]) > 0
        assert checked.split()[:3] == ["Class", "Images", "Instances"] and ": 100%|" in checked
        assert every.split()[:3] == ["all", "4", "8"]
    # of the rest of the run: what was checked, and the last validation
    assert len([line for line in lines if "100%|" in line]) == 2 * 2 + 2 + 1


def test_the_next_command_works_as_it_is_typed(trained):
    """It shows the user's own validation pictures at the trained size, with the user's blocks."""
    here, log = trained
    results, line = log.splitlines()[-2:]
    assert results == "results are in my runs/exp" and line.startswith("next: python ")
    script, *words = shlex.split(line.removeprefix("next: python "))
    weights, source, plugin = (
        "my runs/exp/weights/best.pt",
        str(here / "the set/images/val"),
        str(here / "my blocks.py"),
    )
    assert script == str(ROOT / "detect.py")
    needed = ["--plugins", plugin, "--device", "cpu"]
    assert words == ["--weights", weights, "--source", source, "--imgsz", "64", *needed]
    result = run_line(f"{line.removeprefix('next: ')} --project found", here)
    assert result.returncode == 0, result.stdout
    drawn = sorted(path.name for path in (here / "found" / "exp").iterdir())
    assert drawn == ["0.png", "1.png", "2.png", "3.png"]
    assert cv2.imread(str(here / "found" / "exp" / "0.png")).shape == (64, 96, 3)


def test_hubconf_says_what_it_is_for_without_torch(tmp_path):
    code = "import runpy, sys\nrunpy.run_path('hubconf.py', run_name='__main__')\nassert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0 and not result.stderr
    assert f'torch.hub.load("{ROOT.as_posix()}", "custom", path="best.pt", source="local")' in result.stdout
    assert len(result.stdout.splitlines()) < 15
    assert run_line(f"python {shlex.quote(str(ROOT / 'hubconf.py'))}", tmp_path).stdout == result.stdout


@pytest.mark.slow
def test_a_script_trains_and_validates_where_processes_are_spawned(trained):
    """And begins once: each of its processes imports it, and makes no folder of its own."""
    here = trained[0]
    (here / "mine.py").write_text(SCRIPT.format(root=str(ROOT)))
    result = run_line("python mine.py", here)
    assert result.returncode == 0 and result.stdout.count("training yolov5n on") == 1, result.stdout
    assert sorted(path.name for path in (here / "mine").iterdir()) == ["exp", "exp2"]
    assert 0 <= float(result.stdout.splitlines()[-1]) <= 1
