"""The one exception that means: the user can mend this."""

import _thread
import atexit
import errno
import reprlib
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


# what to do where the system refuses a file, wherever that is noticed
REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EROFS: "write to another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
}
# how PyTorch and OpenCV say that memory is short; Python and NumPy raise MemoryError
NO_MEMORY = ("can't allocate memory", "out of memory", "Insufficient memory")
# characters: of a value that was read and is quoted in a message, and of a whole message
MOST_QUOTED, MOST_SAID = 200, 2000


class UserError(Exception):
    """A mistake in what the user gave: a file, a YAML row, a flag.

    The message is one line that names the place, what was found and what to do about it.
    """


def shown(found: Any, most: int = MOST_QUOTED) -> str:
    """What was read, fit for a message: at most ``most`` characters, none of which controls a terminal.

    Anything but a text is shown as Python writes it, cut at a few levels and entries however deep and large it is.
    """
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = most
    try:
        text = found if isinstance(found, str) else short.repr(found)
    # an integer of more digits than Python writes out
    except ValueError:
        text = f"a huge {type(found).__name__}"
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def one_line(error: UserError) -> str:
    """Its message without line breaks and control characters; of one that crossed a worker process, wrapped in that
    one's traceback, the end."""
    message = str(error).strip()
    if "Traceback (most recent call last)" in message:
        message = message.splitlines()[-1].partition(": ")[2]
    return shown(" ".join(message.split()), MOST_SAID)


def exit_on_user_error(run: Callable[[], T]) -> T:
    """Call ``run()``; on a UserError print ``error: …`` to stderr and exit with status 2, after Ctrl-C with 130.

    So it is where the machine has too little memory or space. Any other exception is a bug of ours and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        # Sent to a file, the output on Windows has an encoding that may lack letters: that is no reason to end. Line by line,
        # what is said on both streams stands in one log in its order, and can be read while the command runs.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    before, sys.unraisablehook = sys.unraisablehook, _interrupt_again
    try:
        return run()
    except UserError as e:
        print(f"error: {one_line(e)}", file=sys.stderr)
        raise SystemExit(2) from None
    # The reader of our output (`| head`) has closed it: nothing more can be reported.
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        raise SystemExit(130) from None
    except OSError as e:
        if e.errno not in REMEDIES:
            raise
        file = shown(str(e.filename or "a file"))
        print(f"error: {file}: could not be read or written: {e.strerror}; {REMEDIES[e.errno]}", file=sys.stderr)
        raise SystemExit(2) from None
    except Exception as e:
        # PyTorch's, which is not imported here
        if type(e).__name__ == "OutOfMemoryError":
            said = "the device is out of memory; lower --batch-size or --imgsz, or take --device cpu"
        elif isinstance(e, MemoryError) or any(words in str(e) for words in NO_MEMORY):
            said = "there is not enough memory for this; try a smaller --batch-size or --imgsz"
        else:
            raise
        print(f"error: {said}", file=sys.stderr)
        raise SystemExit(2) from None
    finally:
        sys.unraisablehook = before
        # all is done or said: one more Ctrl-C while the interpreter tidies up just ends it
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)


def _interrupt_again(unraisable: Any) -> None:
    """Let a Ctrl-C that fell into the clearing away of an object, where Python drops it, come once more behind that."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        # a moment later: at once it would fall into this function
        threading.Timer(0.01, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(unraisable)
