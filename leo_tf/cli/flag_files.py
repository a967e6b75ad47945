"""Flags from the files named by `--flagfile`.

absl reads such files, too, but it opens any path and reads all of it, even a pipe
without a writer or /dev/zero.
"""

import codecs
import os
import stat
from collections.abc import Sequence

from leo_tf.errors import FlagError, quoted

_FLAG = "--flagfile"
_FORMS = (_FLAG, _FLAG[1:])
# Limit for all files of a command line, thousands of times the size of all settings. It
# also ends files that include each other.
_MOST_BYTES = 2**16
# First bytes of text files of Windows PowerShell.
_UTF_16 = codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE


def with_flag_files(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments, with each `--flagfile` replaced by the lines of its file.

    The format is that of absl: one argument per line. Blank lines and lines that begin
    with # or // are skipped. A line may name another file.

    Raises:
      FlagError: if a file cannot be read, is not regular or is too large.
    """
    waiting, expanded, budget = list(reversed(arguments)), [], _MOST_BYTES
    while waiting:
        argument = waiting.pop()
        form, equals, path = argument.partition("=")
        if form not in _FORMS:
            expanded.append(argument)
            continue
        if not equals:
            path = waiting.pop() if waiting else ""
        text = _read(os.path.expanduser(path.strip()), budget)
        budget -= len(text.encode())
        lines = [line.strip() for line in text.splitlines()]
        waiting += [x for x in lines[::-1] if x and not x.startswith(("#", "//"))]
    return expanded


def _read(path: str, budget: int) -> str:
    try:
        # Tested first: opening a pipe without a writer never returns.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise FlagError(
                _FLAG, "a file of flags", f"{quoted(path)}, no regular file"
            )
        with open(path, "rb") as file:
            content = file.read(budget + 1)
        if len(content) > budget:
            expected = f"files of flags of at most {_MOST_BYTES} bytes in all"
            raise FlagError(_FLAG, expected, f"more, with {quoted(path)}")
        return content.decode("utf-16" if content[:2] in _UTF_16 else "utf-8-sig")
    except FlagError:
        raise
    except (OSError, ValueError) as error:  # unreadable or not text
        raise FlagError(_FLAG, "a file of flags", quoted(str(error))) from None
