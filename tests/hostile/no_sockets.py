"""Runs command lines of the program in a process that the network would kill.

    python no_sockets.py JSON

JSON is a list of command lines, run one after the other up to the first that fails; its
exit status is this program's. Linux only: a filter of system calls, see seccomp(2).
"""

import ctypes
import json
import pathlib
import platform
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

# Numbers of system calls: socket; then connect, listen, sendto, sendmsg.
OPENING = {"x86_64": [41], "aarch64": [198]}
TALKING = {"x86_64": [42, 50, 44, 46], "aarch64": [203, 201, 206, 211]}
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_KILL_PROCESS, _ALLOW = 0x80000000, 0x7FFF0000


class _Instruction(ctypes.Structure):
    _fields_ = [
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    ]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("code", ctypes.POINTER(_Instruction))]


def forbid(calls: dict[str, list[int]]) -> None:
    """From here on the system ends this process if it makes one of these calls."""
    numbers = calls[platform.machine()]
    code = [(_LOAD, 0, 0, 0)]  # the number of the call
    code += [(_EQUAL, len(numbers) - i, 0, n) for i, n in enumerate(numbers)]
    code += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _KILL_PROCESS)]
    array = (_Instruction * len(code))(*code)
    system = ctypes.CDLL(None, use_errno=True)
    program = ctypes.byref(_Program(len(code), array))
    if system.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    if system.prctl(_SECCOMP, _FILTER, program, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


def main(command_lines: list[list[str]]) -> int:
    forbid(TALKING)
    from leo_tf.cli import main as command_line

    # Not before: urllib3, which others import, tries whether there is IPv6.
    forbid(OPENING)
    for arguments in command_lines:
        if status := command_line.main(["run_leo.py", *arguments]):
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
