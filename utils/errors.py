"""The one exception that means: the user can mend this."""

import errno
import sys
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


STORAGE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


class UserError(Exception):
    """A mistake in what the user gave: a file, a YAML row, a flag.

    The message is one line that names the place, what was found and what to do about it.
    """


def one_line(error: UserError) -> str:
    """Its message without line breaks; of one that crossed a worker process, wrapped in that one's traceback, the end."""
    message = str(error).strip()
    if "Traceback (most recent call last)" in message:
        message = message.splitlines()[-1].partition(": ")[2]
    return " ".join(message.split())


def exit_on_user_error(run: Callable[[], T]) -> T:
    """Call ``run()``; on a UserError print ``error: …`` to stderr and exit with status 2.

    Any other exception is a bug of ours and keeps its traceback.
    """
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
