"""Programs that end with this one, however it ends."""

import contextlib
import ctypes
import os
import signal
import subprocess

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1

# Each with the signal that ends it.
STARTED = []


def start(command, log, end, **environment):
    """To be called in the main thread: the kernel sends `end` when the thread that started a program ends."""
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**os.environ, **environment},
        start_new_session=True,
        preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, end),
    )
    STARTED.append((process, end))
    return process


def end_all():
    for process, end in STARTED:
        process.send_signal(end)
    for process, _ in STARTED:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


# A node has nothing to save, and may be stopped: only this signal ends it at once.
KILL = signal.SIGKILL
# uWSGI's master ends its workers.
INTERRUPT = signal.SIGINT
