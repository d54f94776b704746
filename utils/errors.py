"""The one exception that means: the user can mend this."""

import errno
import reprlib
import sys
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


STORAGE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
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
    """Call ``run()``; on a UserError print ``error: …`` to stderr and exit with status 2.

    Any other exception is a bug of ours and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        # sent to a file, the output on Windows has an encoding that may lack letters: that is no reason to end
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        return run()
    except UserError as e:
        print(f"error: {one_line(e)}", file=sys.stderr)
        raise SystemExit(2) from None
    # The reader of our output (`| head`) has closed it: nothing more can be reported.
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None
    except OSError as e:
        if e.errno not in STORAGE_ERRORS:
            raise
        print(f"error: {e.filename or 'a file'}: could not be written: {e.strerror}; free some space", file=sys.stderr)
        raise SystemExit(2) from None
