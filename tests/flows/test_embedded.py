"""The embedded server: it ends with a process that is killed, and is left to one that ends by itself."""

import contextlib
import signal
import subprocess
import sys
import time

import psutil
import pytest

#: A process with a child that looks like Prefect's server, watched.
PARENT = """
import subprocess, sys, time
from flows.embedded import end_server_with_us
child = subprocess.Popen(
    [sys.executable, "-c", "print(flush=True); import time; time.sleep(120)", "prefect.server.api"],
    start_new_session=True,
    stdout=subprocess.PIPE,
)
# As Prefect's server does it answers before it is looked for: just started, it has no command line yet.
child.stdout.readline()
end_server_with_us()
print(child.pid, flush=True)
if sys.argv[1] == "wait":
    time.sleep(120)
"""


@pytest.mark.parametrize("ends", ["killed", "by itself"])
def test_a_killed_process_leaves_no_server(ends):
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, "wait" if ends == "killed" else "go"],
        stdout=subprocess.PIPE,
        text=True,
    )
    server = psutil.Process(int(process.stdout.readline()))
    try:
        if ends == "killed":
            process.send_signal(signal.SIGKILL)
            process.wait()
            deadline = time.monotonic() + 60
            with contextlib.suppress(psutil.NoSuchProcess):
                while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:
                    assert time.monotonic() < deadline, "the server outlived its process"
                    time.sleep(0.05)
        else:
            assert process.wait(60) == 0
            time.sleep(0.3)
            assert server.is_running()  # Prefect ends it itself.
    finally:
        if server.is_running():
            server.kill()
