"""How often some processes call the kernel, and for what; counted by perf, which slows them little."""

import shutil
import signal
import subprocess
import time
from collections.abc import Sequence

from bench.programs import BenchError

#: What a proxy may call; what else there is shows in ``all``.
_NAMES = (
    *("accept", "accept4", "bind", "close", "connect", "fcntl", "getpeername", "getsockname", "getsockopt"),
    *(
        "epoll_ctl",
        "epoll_pwait",
        "epoll_pwait2",
        "epoll_wait",
        "futex",
        "ioctl",
        "read",
        "readv",
        "recvfrom",
    ),
    *(
        "recvmsg",
        "sendmsg",
        "sendto",
        "setsockopt",
        "shutdown",
        "socket",
        "timerfd_settime",
        "write",
        "writev",
    ),
)

#: perf does not say when it has begun.
_PERF_STARTS_S = 0.5


class SystemCalls:
    """A count that runs from now on."""

    def __init__(self, pids: Sequence[int]) -> None:
        perf = shutil.which("perf")
        if perf is None:
            raise BenchError("Counting system calls takes perf, which is missing: install linux-perf.")
        events = ["raw_syscalls:sys_enter", *(f"syscalls:sys_enter_{name}" for name in _NAMES)]
        self._process = subprocess.Popen(
            [perf, "stat", "-x", ";", "-e", ",".join(events), "-p", ",".join(str(pid) for pid in pids)],
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(_PERF_STARTS_S)

    def stop(self) -> dict[str, int]:
        """How often each was called, and ``all`` of them; what was not called is left out.

        Raises:
            BenchError: perf may not count here.
        """
        self._process.send_signal(signal.SIGINT)
        said = self._process.communicate()[1]
        counts = {}
        for line in said.splitlines():
            fields = line.split(";")
            if len(fields) > 2 and fields[0].isdigit():
                raw = fields[2].startswith("raw_syscalls")
                counts["all" if raw else fields[2].rpartition("sys_enter_")[2]] = int(fields[0])
        if not counts:
            raise BenchError(f"perf counted nothing: {said.strip()[-300:]}")
        return {name: count for name, count in counts.items() if count}
