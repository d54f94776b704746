"""A script without a guard begins only once; memory is kept for the next batch."""

import os
import subprocess
import sys

import pytest

from tests.helpers.project import ROOT

SCRIPT = """
import multiprocessing, sys
sys.path.insert(0, {root!r})
from utils.console.guard import stop_second_start

def help(name):
    stop_second_start()
    print(name, flush=True)

def run():
    stop_second_start()
    print("begun", flush=True)
    process = multiprocessing.get_context({method!r}).Process(target=help, args=("helped",))
    process.start()
    process.join()

{guard}run()
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_process_that_is_started_to_help_does_not_begin_all_over(method, tmp_path):
    """With a guard, and where it is forked, it does what it was started for; and a program's own processes may train."""
    for guard in ("", "if __name__ == '__main__': "):
        file = tmp_path / "mine.py"
        file.write_text(SCRIPT.format(root=str(ROOT), method=method, guard=guard))
        result = subprocess.run([sys.executable, file], capture_output=True, text=True, timeout=60)
        helped = guard or method == "fork"
        assert result.stdout.split() == (["begun", "helped"] if helped else ["begun"]), result.stderr


FAULTS = """
import resource, sys
sys.path.insert(0, {root!r})
from utils.console.guard import keep_freed_memory

keep_freed_memory()
for _ in range(20):
    blocks = [bytearray(b"x") * (8 << 20) for _ in range(6)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="for glibc alone")
@pytest.mark.parametrize(("environment", "kept"), [({}, True), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, False)])
def test_memory_is_cleared_by_the_system_once_and_not_for_every_batch(environment, kept):
    """20 times 48 MB are 12,288 pages each time; a user's own settings stay."""
    unset = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    words = [sys.executable, "-c", FAULTS.format(root=str(ROOT))]
    result = subprocess.run(words, capture_output=True, text=True, timeout=60, env=unset | environment)
    faults = int(result.stdout)
    assert (faults < 4 * 12_288) is kept, result.stderr
