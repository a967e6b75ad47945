"""Builds the library that makes file-system calls fail, and reads its log."""

import ctypes
import dataclasses
import enum
import pathlib
import shutil
import subprocess
import sys

_SOURCE = pathlib.Path(__file__).with_name("fault_injector.c")
_WRITES = frozenset(["write", "fwrite", "fflush", "fclose"])


class _Mode(enum.IntEnum):
    """Behaviour of the library at the call, as in fault_injector.c."""

    COUNT = 0
    KILL_BEFORE = 1
    KILL_AFTER = 2
    HALF = 3
    FAIL_ONCE = 4
    FULL = 5
    DEAD = 6


class Fault(enum.Enum):
    """A fault to inject at a call."""

    NONE = "no fault"
    KILLED_BEFORE = "killed before the call"
    KILLED_AFTER = "killed after the call"
    HALF_WRITTEN = "half written, then killed"
    FAILS_ONCE = "fails once, EIO"
    DISK_FULL = "disk full from there on, ENOSPC"
    DISK_DEAD = "every call fails from there on, ENOSPC or EIO"
    DATA_LOST = "power cut: data not flushed is lost"
    NAMES_LOST = "power cut: names not flushed are lost"

    @property
    def fails(self) -> bool:
        """True if the call fails and the process goes on."""
        return self in (Fault.FAILS_ONCE, Fault.DISK_FULL, Fault.DISK_DEAD)

    @property
    def kills(self) -> bool:
        return self is not Fault.NONE and not self.fails


_MODES = {
    Fault.NONE: _Mode.COUNT,
    Fault.KILLED_BEFORE: _Mode.KILL_BEFORE,
    Fault.KILLED_AFTER: _Mode.KILL_AFTER,
    Fault.HALF_WRITTEN: _Mode.HALF,
    Fault.FAILS_ONCE: _Mode.FAIL_ONCE,
    Fault.DISK_FULL: _Mode.FULL,
    Fault.DISK_DEAD: _Mode.DEAD,
    Fault.DATA_LOST: _Mode.KILL_AFTER,
    Fault.NAMES_LOST: _Mode.KILL_AFTER,
}


@dataclasses.dataclass(frozen=True)
class Call:
    """A file-system call, as the library saw it before it was made.

    Attributes:
      kind: "r" if it only reads; "g" if a full disk can fail it; else "c".
      inode: of the open file; 0 for a call on a path.
      other: the second path of a rename.
    """

    number: int
    name: str
    kind: str
    inode: int
    path: str
    other: str

    @classmethod
    def from_line(cls, line: str) -> "Call":
        _, number, name, kind, inode, path, other = line.split("\t")
        return cls(int(number), name, kind, int(inode), path, other)

    def faults(self) -> list[Fault]:
        """Returns all faults possible here. A kill at a mere read changes nothing."""
        if self.kind == "r":
            return [Fault.FAILS_ONCE, Fault.DISK_DEAD]
        impossible = {Fault.NONE}
        if self.name not in _WRITES:
            impossible.add(Fault.HALF_WRITTEN)
        if self.kind != "g":
            impossible.add(Fault.DISK_FULL)
        if self.kind != "g" and self.name == "open":
            # There is nothing more to lose than after the call before it.
            impossible |= {Fault.DATA_LOST, Fault.NAMES_LOST}
        return [fault for fault in Fault if fault not in impossible]


def why_not_here() -> str:
    """Returns why faults cannot be injected on this machine; "" if they can."""
    if not sys.platform.startswith("linux"):
        return "LD_PRELOAD and /proc are Linux's"
    return "" if shutil.which("gcc") else "gcc is not installed"


def build(directory: pathlib.Path) -> pathlib.Path:
    """Compiles the library into a directory; returns its path, for LD_PRELOAD."""
    library = directory / "fault_injector.so"
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(
        ["gcc", *flags, "-o", str(library), str(_SOURCE), "-ldl"], check=True
    )
    return library


def arm(directory: pathlib.Path, call: int, fault: Fault, log: int) -> None:
    """Makes this process log its calls, and fail at call `number`.

    Args:
      directory: calls below it count, from 1.
      log: descriptor the log is written to.
    """
    library = ctypes.CDLL(None)
    library.fault_arm.argtypes = [
        ctypes.c_char_p,
        ctypes.c_long,
        ctypes.c_int,
        ctypes.c_int,
    ]
    library.fault_arm(str(directory).encode(), call, _MODES[fault], log)


def disarm() -> None:
    """The disk is well again."""
    ctypes.CDLL(None).fault_disarm()
