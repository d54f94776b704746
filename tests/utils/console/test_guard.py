"""A script without a guard begins only once."""

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
