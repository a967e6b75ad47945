"""A worker without TensorFlow: it does what the name of its task says.

quick: ends at once.         fails: ends with an error.
long: until it is told to.   torn: dies while it says something.
dies-N: kills itself the first N times, then ends.
hangs-N: does nothing, likewise.   talks: tells of itself for five seconds.
stops: gets SIGTERM while it has nothing to save.
Starts are counted in the run directory. It loads as many seconds as LOADING says, and
makes a file TORN_DOWN if Python takes the trouble to unload it.
"""

import atexit
import json
import os
import pathlib
import runpy
import signal
import sys
import time

import leo_tf.errors
from leo_tf.errors import Stopped
from leo_tf.experiments.runner.tasks import Sign, Task, as_dict
from leo_tf.experiments.runner.worker import main

# By its path, because its package loads TensorFlow.
_path = pathlib.Path(leo_tf.errors.__file__).with_name("training") / "interrupts.py"
StopRequest = runpy.run_path(str(_path))["StopRequest"]


def work(task: Task, tell) -> Sign:
    kind, _, count = task.name.split("/")[-1].partition("-")
    directory = pathlib.Path(task.workdir)
    directory.mkdir(parents=True, exist_ok=True)
    started = len(list(directory.glob("start_*")))
    (directory / f"start_{started}").write_text(str(os.getpid()))
    (directory / "slot").write_text(os.environ.get("SLOT", ""))
    tell(Sign(task.name, "begun", step=started, total=10))
    print("noise of a library")
    if kind == "torn":
        sys.stdout.flush()
        os.write(ANSWERS, json.dumps(Sign(task.name, "to")).encode()[:9])
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "dies" and started < int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "hangs" and started < int(count):
        time.sleep(600)
    if kind == "stops":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)
    for step in range(100 if kind == "talks" else 0):
        tell(Sign(task.name, "as ever", step=step, total=100))
        time.sleep(0.05)
    error = None
    if kind == "fails":
        error = {"type": "InputError", "parts": ["here", "this", "that", "Mend it."]}
    if kind == "long":
        with StopRequest() as request:
            (directory / "ready").write_text("")
            while request.signal is None:
                time.sleep(0.01)
            time.sleep(0.3)  # it takes a while to save it
            (directory / "saved").write_text("")
        error = as_dict(Stopped(request.signal))
    return Sign(task.name, has_ended=True, error=error)


if __name__ == "__main__":
    from leo_tf.experiments.runner import worker

    ANSWERS = os.dup(1)
    if "TORN_DOWN" in os.environ:
        atexit.register(pathlib.Path(os.environ["TORN_DOWN"]).touch)
    worker.load, worker.work = (
        lambda: time.sleep(float(os.environ.get("LOADING", 0))),
        work,
    )
    main()
