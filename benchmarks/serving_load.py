"""Sends many clients' requests to `--mode=serve` and checks answers and delays.

    python run_leo.py --mode=export --workdir=runs/mine --export_dir=exported
    python benchmarks/serving_load.py --export_dir=exported

Starts a server of its own on loopback. Every client keeps its connection and sends one
request after another: five of six ask `predict` with the classifier of one of several
tasks, the sixth `classify`, which adapts anew; of all, every tenth is wrong in one of
several ways. A right request must get the answer that the model in this process gives,
to 1e-5, and a wrong one status 400 and its reason. Clients and server share the cores.
"""

import argparse
import collections
import functools
import http.client
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from leo_tf.serving.models import connect, newest

_PROGRAM = pathlib.Path(__file__).parents[1] / "run_leo.py"
_PATH = "/v1/models/leo:predict"
_TASKS, _WAYS, _SHOTS, _QUERIES = 20, (2, 5, 7), (1, 2, 5), 15
_TOLERANCE = 1e-5
_WRONG_EVERY, _CLASSIFY_EVERY = 10, 6
_MEMORY_READINGS = 10


class Request(NamedTuple):
    """A request and what must come back.

    Attributes:
      kind: the row of the table.
      body: JSON.
      expected: probabilities [M, N]; None if it must be refused.
      reason: what a refusal must tell.
    """

    kind: str
    body: bytes
    expected: np.ndarray | None
    reason: str = ""


def tasks(model, size: int) -> list[Request]:
    """Returns valid requests: `predict` and `classify` of random tasks, in turn."""
    random = np.random.default_rng(0)
    requests = []
    for task in range(_TASKS):
        way, shot = _WAYS[task % len(_WAYS)], _SHOTS[task // len(_WAYS) % len(_SHOTS)]
        labels = np.repeat(np.arange(way), shot)
        centres = random.normal(size=(way, size))
        support = np.float32(
            centres[labels] + 0.5 * random.normal(size=(len(labels), size))
        )
        queries = np.float32(random.normal(size=(_QUERIES, size)))
        classifier = model("adapt", {"support": support, "labels": labels})[
            "classifier"
        ]
        predict = {"classifier": classifier, "queries": queries}
        classify = {"support": support, "labels": labels, "queries": queries}
        for signature, inputs in (("predict", predict), ("classify", classify)):
            expected = model(signature, inputs)["probabilities"]
            requests.append(Request(signature, _body(signature, inputs), expected))
    return requests


def _body(signature: str, inputs: dict) -> bytes:
    lists = {name: np.asarray(value).tolist() for name, value in inputs.items()}
    return json.dumps({"signature_name": signature, "inputs": lists}).encode()


def wrong(right: list[Request]) -> list[Request]:
    """Returns requests to be refused, made from a valid `classify`."""
    request = json.loads(right[1].body)
    inputs = request["inputs"]
    gap = [label + (label > 0) for label in inputs["labels"]]
    nan = [[float("nan")] * len(inputs["queries"][0])]
    bodies = [
        (b"{", "body"),
        (json.dumps({**request, "signature_name": "no"}).encode(), "signature_name"),
        (_body("classify", {**inputs, "labels": gap}), "labels"),
        (_body("classify", {**inputs, "labels": [0] * len(gap)}), "labels"),
        (_body("classify", {**inputs, "queries": nan}), "queries"),
        (_body("classify", {**inputs, "support": inputs["support"][:1]}), ""),
        (json.dumps({**request, "inputs": {"support": []}}).encode(), "expected"),
    ]
    return [Request("wrong", body, None, reason) for body, reason in bodies]


def sequence(right: list[Request], bad: list[Request], count: int) -> list[Request]:
    """Returns `count` requests in the order they are sent."""
    predict, classify = itertools.cycle(right[::2]), itertools.cycle(right[1::2])
    bad = itertools.cycle(bad)
    chosen = []
    for number in range(count):
        if number % _WRONG_EVERY == _WRONG_EVERY - 1:
            chosen.append(next(bad))
        else:
            chosen.append(next(predict if number % _CLASSIFY_EVERY else classify))
    return chosen


def judge(request: Request, status: int, answer: bytes, output: str = "") -> str:
    """Returns "right", or what is wrong with the answer to a request.

    `output` names the one to look at, if the signature has several.
    """
    content = json.loads(answer)
    if request.expected is None:
        refused = status == 400 and request.reason in content.get("error", "")
        return "right" if refused else f"wrong: {status} {answer[:200]!r}"
    if status != 200:
        return f"wrong: {status} {answer[:200]!r}"
    received = np.array(content["outputs"][output] if output else content["outputs"])
    near = received.shape == request.expected.shape and np.allclose(
        received, request.expected, rtol=0, atol=_TOLERANCE
    )
    return "right" if near else "wrong: other numbers"


class Load:
    """Clients that take requests from one queue and record the outcomes.

    Attributes:
      outcomes: how many answers were "right", and each other thing that happened.
      seconds: kind -> seconds that each of its requests took.
      memory: resident bytes of the server, read by the way.
    """

    def __init__(self, port: int, process: int, requests: list[Request], judged):
        self._port, self._process, self._judge = port, process, judged
        self._requests = iter(enumerate(requests))
        self._lock = threading.Lock()
        self._reading_every = max(1, len(requests) // _MEMORY_READINGS)
        self.outcomes, self.memory = collections.Counter(), []
        self.seconds = collections.defaultdict(list)

    def run(self, clients: int) -> float:
        """Sends all requests; returns the seconds it took."""
        threads = [threading.Thread(target=self._client) for _ in range(clients)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - start

    def _client(self):
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        while True:
            with self._lock:
                number, request = next(self._requests, (0, None))
            if request is None:
                connection.close()
                return
            start = time.perf_counter()
            try:
                connection.request("POST", _PATH, request.body)
                response = connection.getresponse()
                outcome = self._judge(request, response.status, response.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                outcome = f"lost: {error!r}"
                connection.close()
            with self._lock:
                self.seconds[request.kind].append(time.perf_counter() - start)
                self.outcomes[outcome] += 1
                if number % self._reading_every == 0:
                    self.memory.append(resident_bytes(self._process))


def resident_bytes(process: int) -> int:
    status = pathlib.Path(f"/proc/{process}/status").read_text()
    return 1024 * int(re.search(r"VmRSS:\s+(\d+)", status)[1])


def start_server(export_dir: str) -> tuple[subprocess.Popen, int]:
    """A server and its port."""
    command = [sys.executable, str(_PROGRAM), "--mode=serve", "--port=0"]
    server = subprocess.Popen(
        [*command, f"--export_dir={export_dir}"], stderr=subprocess.PIPE, text=True
    )
    line = server.stderr.readline()
    found = re.search(r"http://[^ ]*:(\d+)", line)
    if not found:
        sys.exit(line + server.stderr.read())
    # What else it says, so that it never waits for a reader.
    said = threading.Thread(
        target=shutil.copyfileobj, args=(server.stderr, sys.stderr), daemon=True
    )
    said.start()
    return server, int(found[1])


def show(load: Load, seconds: float, clients: int) -> None:
    table = Table(title=f"{clients} clients", box=box.SIMPLE)
    for column in ("requests", "count", "p50 ms", "p99 ms", "max ms"):
        table.add_column(column, justify="left" if column == "requests" else "right")
    everything = [each for kind in load.seconds.values() for each in kind]
    for kind, times in [*sorted(load.seconds.items()), ("all", everything)]:
        numbers = np.percentile(times, [50, 99, 100]) * 1e3
        table.add_row(kind, str(len(times)), *(f"{number:.1f}" for number in numbers))
    Console(width=80).print(table)
    print(
        f"{len(everything) / seconds:,.0f} requests/s; outcomes: {dict(load.outcomes)}"
    )
    megabytes = " ".join(f"{size / 2**20:.0f}" for size in load.memory)
    print(f"resident memory of the server, MB, over the run: {megabytes}")


def under_load(
    export_dir: str, requests: list[Request], clients: int, judged=judge
) -> int:
    """Sends requests to a server of its own; returns 0 if all answers were right."""
    server, port = start_server(export_dir)
    try:
        load = Load(port, server.pid, requests, judged)
        show(load, load.run(clients), clients)
        print(f"at the end: {resident_bytes(server.pid) / 2**20:.0f} MB")
    finally:
        server.terminate()
        server.wait()
    print(f"server ended with status {server.returncode}")
    return 0 if set(load.outcomes) == {"right"} else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--export_dir", required=True, help="exported versions")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=8)
    args = parser.parse_args()
    model = connect(args.export_dir)
    metadata = json.loads((newest(args.export_dir) / "export.json").read_text("utf-8"))
    right = tasks(model, metadata["embedding_size"])
    requests = sequence(right, wrong(right), args.requests)
    judged = functools.partial(judge, output="probabilities")
    return under_load(args.export_dir, requests, args.clients, judged)


if __name__ == "__main__":
    sys.exit(main())
