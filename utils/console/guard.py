"""A script without `if __name__ == "__main__":`, where processes that load images are not forked but begin anew."""

import multiprocessing


def stop_second_start() -> None:
    """End this process, without a word, if it is one that was started to help and is still importing the script.

    A script without a guard begins all over in it. The process that waits for its help tells the user what to do, see
    watching_workers of utils/data/loader.py; here nothing more is printed, and no folder is made.
    """
    # Python's own mark, by which it refuses to start processes from there
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(1)
