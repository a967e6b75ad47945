"""Decodes many pictures in worker processes with limits.

Shape letters: n pictures, S pixels a side.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from leo_tf.console import Console
from leo_tf.data_pipeline.images import worker
from leo_tf.data_pipeline.images.pictures import Pictures
from leo_tf.data_pipeline.images.worker import ANSWER, READY, fitted
from leo_tf.environment import cores
from leo_tf.errors import InputError

# What one picture may take: one of 64 million pixels takes a second or two, and some
# 500 MB where it is transparent.
_MOST_MEMORY = 1 << 30
_MOST_SECONDS = 30.0
_BATCH = 32
# More workers would wait for the disk, or for the consumer of the pixels.
_MOST_WORKERS = 16
_DIGEST_BYTES = 32
_BAD_SHOWN = 20
# Batches that are decoded or waiting to be taken, for each process.
_AHEAD = 2


class Decoded(NamedTuple):
    """The good pictures of a batch of up to n."""

    indices: np.ndarray  # [n] int: which of `Pictures.items`
    pixels: np.ndarray  # [n, S, S, 3] uint8: rows, columns, red green blue
    digests: tuple[str, ...]  # [n] SHA-256 of each file's content, in hexadecimal


class _Task(NamedTuple):
    """Arguments that a worker gets besides the paths; see `worker.serve`."""

    root: str
    size: int
    seconds: float


def usual_workers() -> int:
    """Returns the default number of processes of `decode`."""
    return min(_MOST_WORKERS, cores())


def decode(
    pictures: Pictures,
    size: int,
    *,
    indices: Sequence[int] | np.ndarray | None = None,
    bad: list[InputError] | None = None,
    workers: int | None = None,
    batch_size: int = _BATCH,
    seconds: float = _MOST_SECONDS,
    memory: int = _MOST_MEMORY,
) -> Iterator[Decoded]:
    """Decodes pictures in order, a few batches ahead, safe from hostile files.

    Each picture is turned as its EXIF data says, and its middle square is resized to
    S x S pixels of RGB. An animation gives its first frame; transparent parts are
    white. Fresh worker processes without TensorFlow do this. If a picture kills a
    worker, it is named and the worker is replaced. The workers end with the iterator.

    Args:
      pictures: from `find_pictures`.
      size: S.
      indices: [n] which of the pictures, in this order; all unless given.
      bad: a list to which the error of each bad picture is added; it is left out of
        its batch then. Unless given, the first one is raised.
      workers: number of processes; by default one per available core, at most 16.
      batch_size: pictures to decode per request, and to yield at a time.
      seconds: limit of time for one picture.
      memory: bytes that a process may take beyond those it starts with (Linux).

    Yields:
      Batches of `batch_size` less bad pictures; the last one may be smaller.

    Raises:
      InputError: if a picture is bad and `bad` is not given; it names the picture.
    """
    chosen = np.arange(len(pictures.items)) if indices is None else np.asarray(indices)
    batches = [chosen[i : i + batch_size] for i in range(0, len(chosen), batch_size)]
    if pictures.images is not None:
        for batch in batches:
            yield _in_memory(pictures.images, batch, size)
        return
    task = _Task(pictures.root, size, seconds)
    requests = ([pictures.items[i] for i in batch] for batch in batches)
    count = max(1, min(workers or usual_workers(), len(batches)))
    with contextlib.closing(_answers(requests, task, count, memory)) as answers:
        for batch, answered in zip(batches, answers):
            for index, answer in zip(batch, answered):
                if isinstance(answer, tuple):
                    where = os.path.join(pictures.root, pictures.items[index])
                    error = InputError(where, *answer)
                    if bad is None:
                        raise error
                    bad.append(error)
            good = [(i, a) for i, a in zip(batch, answered) if isinstance(a, bytes)]
            if good:
                yield _stacked(good, size)


def say_bad(bad: Sequence[InputError], total: int, console: Console) -> None:
    """Says how many of `total` pictures were left out, and which."""
    if bad:
        console.warn(f"left out {len(bad)} of {total} pictures:")
    for error in bad[:_BAD_SHOWN]:
        console.warn(f"  {error}")
    if len(bad) > _BAD_SHOWN:
        console.warn(f"  and {len(bad) - _BAD_SHOWN} more")


def _stacked(good: list[tuple[int, bytes]], size: int) -> Decoded:
    pixels = np.empty((len(good), size, size, 3), np.uint8)
    for row, (_, answer) in zip(pixels, good):
        row[:] = np.frombuffer(answer, np.uint8, offset=_DIGEST_BYTES).reshape(
            row.shape
        )
    digests = tuple(answer[:_DIGEST_BYTES].hex() for _, answer in good)
    return Decoded(np.array([i for i, _ in good]), pixels, digests)


def _in_memory(images: np.ndarray, batch: np.ndarray, size: int) -> Decoded:
    """Decodes pictures of our own in memory, in this process."""
    pixels = [np.asarray(fitted(Image.fromarray(images[i]), size)) for i in batch]
    digests = tuple(hashlib.sha256(images[i]).hexdigest() for i in batch)
    return Decoded(batch, np.stack(pixels), digests)


# Digest and pixels; or expected, received and perhaps a hint for a bad picture.
_Answer = bytes | tuple[str, ...]


def _answers(
    requests: Iterable[list[str]], task: _Task, count: int, memory: int
) -> Generator[list[_Answer], None, None]:
    """Yields the answers to each request in order, from `count` workers."""
    idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
    processes = [_Process(memory) for _ in range(count)]
    for process in processes:
        idle.put(process)

    def answers_to(items: list[str]) -> list[_Answer]:
        process = idle.get()
        try:
            return process.answers(items, task)
        finally:
            idle.put(process)

    threads = concurrent.futures.ThreadPoolExecutor(count)
    waiting: deque[concurrent.futures.Future] = deque()
    try:
        for items in requests:
            waiting.append(threads.submit(answers_to, items))
            if len(waiting) >= _AHEAD * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for process in processes:  # their threads wait for them
            process.close()
        threads.shutdown(cancel_futures=True)


class _Process:
    """A worker that decodes pictures. It is started on demand and restarted."""

    def __init__(self, memory: int):
        self._command = [sys.executable, worker.__file__, str(memory)]
        self._child: Any = None
        self._lock, self._is_closed = threading.Lock(), False

    def answers(self, items: list[str], task: _Task) -> list[_Answer]:
        """Returns the answer to each item.

        If an item kills the worker, its answer is that error.
        """
        found: list[_Answer] = []
        suspect = -1
        while len(found) < len(items):
            child = self._started()
            with contextlib.suppress(EOFError, BrokenPipeError):
                line = json.dumps([task.root, items[len(found) :], *task[1:]])
                child.stdin.write(line.encode() + b"\n")
                child.stdin.flush()
                while len(found) < len(items):
                    found.append(_read_answer(child.stdout))
            if len(found) == len(items):
                break
            status = self._stopped()
            # One death may have another cause: a system short of memory, or a pause by
            # Ctrl-Z, during which the seconds count.
            if len(found) == suspect:
                found.append(_of_death(status, task.seconds))
                suspect = -1
            else:
                suspect = len(found)
        return found

    def close(self) -> None:
        """Kills the worker, whatever it does."""
        with self._lock:
            self._is_closed = True
        self._stopped()

    def _started(self) -> Any:
        with self._lock:
            if self._is_closed:
                raise concurrent.futures.CancelledError
            if self._child is None:
                pipe = subprocess.PIPE
                child: Any = subprocess.Popen(self._command, stdin=pipe, stdout=pipe)
                self._child = child
                if child.stdout.read(1) != READY:
                    expected = "a process that decodes pictures, by Pillow"
                    received = f"one that ended with status {child.wait()}"
                    raise InputError(self._command[1], expected, received)
            return self._child

    def _stopped(self) -> int:
        """Ends the worker, and returns its status."""
        with self._lock:
            child, self._child = self._child, None
        if child is None:
            return 0
        child.kill()  # does nothing if it has ended
        with contextlib.suppress(BrokenPipeError), child:  # closes its pipes
            child.wait()
        return child.returncode


def _read_answer(stream: BinaryIO) -> _Answer:
    def read(count: int) -> bytes:
        content = stream.read(count)
        if len(content) < count:
            raise EOFError
        return content

    is_good, length = ANSWER.unpack(read(ANSWER.size))
    content = read(length)
    return content if is_good else tuple(json.loads(content))


def _of_death(status: int, seconds: float) -> tuple[str, ...]:
    """Returns expected and received for a picture that ended its worker."""
    if status == -signal.SIGALRM:
        return f"a picture that is decoded in {seconds:g} s", "one that takes longer"
    name = signal.Signals(-status).name if status < 0 else f"status {status}"
    return "a picture that can be decoded", f"one that ended the decoder by {name}"
