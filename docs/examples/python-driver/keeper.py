"""The keeper of one sandbox: a small process that outlives the driver. NO ISOLATION: for learning.

It is the parent of the supervisor and the reaper of everything below it, so it alone can say for certain that
nothing of the sandbox runs any more. It

- starts the supervisor and writes `boot.json`: who was started;
- ends everything at the deadline, whoever else has died by then;
- on SIGTERM asks the supervisor to end; on SIGUSR1 kills everything at once;
- when the supervisor has ended, for whatever reason, kills what is left and writes `end.json`: how it ended.

It holds the sandbox's lock as long as it lives, which is how a driver that was started anew knows that it does.
It never reads the bootstrap: the descriptor goes on to the supervisor unread.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional

import procs
from files import write_json

# The driver blocks these before it starts a keeper, so that none can come too early.
WATCHED = frozenset({signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1})
PR_SET_CHILD_SUBREAPER = 36
# How often the wall clock is looked at, which somebody may set.
TICK_S = 5.0
CONSOLE_BYTES_MAX = 1 << 20


def main() -> None:
    directory, boot, expire_time_unix_ms, bootstrap_fd, supervisor_fd, nice = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    # SIGCHLD must not be ignored, or the kernel reaps for us and keeps the exit codes to itself.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "become the reaper of the sandbox's processes")
    keeper = Keeper(Path(directory), int(boot), int(expire_time_unix_ms))
    keeper.run(int(bootstrap_fd), int(supervisor_fd), int(nice))


class Keeper:
    """One boot of one sandbox."""

    def __init__(self, directory: Path, boot: int, expire_time_unix_ms: int) -> None:
        self.directory = directory
        self.boot = boot
        self.expire_time_unix_ms = expire_time_unix_ms
        self.supervisor = 0
        # The supervisor's wait status, once it has ended.
        self.status: Optional[int] = None

    def run(self, bootstrap_fd: int, supervisor_fd: int, nice: int) -> None:
        try:
            self.supervisor = self.start(bootstrap_fd, supervisor_fd, nice)
        except OSError as error:
            self.write_end("start_failed", message=f"the supervisor could not be started: {error.strerror}")
            return
        try:
            self.write_boot()
            why = self.wait()
        finally:
            # Also when the disk is full or somebody has removed the directory: nothing goes on without its keeper.
            self.kill_everything()
        if why is not None:
            self.write_end(why)
        elif self.status is not None and os.WIFSIGNALED(self.status):
            self.write_end("signaled", signal=os.WTERMSIG(self.status))
        elif self.status is not None:
            self.write_end("exited", exit_code=os.WEXITSTATUS(self.status))

    def start(self, bootstrap_fd: int, supervisor_fd: int, nice: int) -> int:
        def in_the_child() -> None:
            os.nice(nice)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])

        callback_fd = os.open(self.directory / "callback", os.O_RDONLY | os.O_DIRECTORY)
        with open(self.directory / "console.log", "ab") as console:
            # The bootstrap descriptor is a pipe: it is in no argument, no environment, no file.
            child = subprocess.Popen(
                ["cofferdam-supervisor", "--callback", f"dirfd:{callback_fd}", "--config-fd", str(bootstrap_fd)],
                executable=f"/proc/self/fd/{supervisor_fd}",
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                cwd="/",
                env={},
                pass_fds=(bootstrap_fd, supervisor_fd, callback_fd),
                start_new_session=True,
                preexec_fn=in_the_child,
            )
        for fd in (bootstrap_fd, supervisor_fd, callback_fd):
            os.close(fd)
        return child.pid

    def wait(self) -> Optional[str]:
        """Until the supervisor has ended or everything must. Says why, unless it ended by itself."""
        asked = False
        while True:
            self.reap()
            if self.status is not None:
                return "asked" if asked else None
            left_s = self.expire_time_unix_ms / 1000 - time.time()
            if left_s <= 0:
                return "deadline"
            received = signal.sigtimedwait(WATCHED, min(left_s, TICK_S))
            if received is not None and received.si_signo == signal.SIGUSR1:
                return "asked"
            if received is not None and received.si_signo == signal.SIGTERM:
                asked = True
                # Not reaped yet, so this is the supervisor and nobody else.
                os.kill(self.supervisor, signal.SIGTERM)
            self.bound_console()

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.supervisor:
                self.status = status

    def kill_everything(self) -> None:
        """Whoever loses its parent becomes our child, so nothing can leave the tree while we kill it."""
        while True:
            self.reap()
            alive = procs.descendants(os.getpid())
            if not alive:
                break
            for pid in alive:
                procs.kill(pid)
            signal.sigtimedwait({signal.SIGCHLD}, 0.05)
        self.reap()

    def bound_console(self) -> None:
        path = self.directory / "console.log"
        try:
            if path.stat().st_size > CONSOLE_BYTES_MAX:
                # It is written by appending, so it simply starts anew.
                os.truncate(path, 0)
        except FileNotFoundError:
            pass  # Somebody has removed the directory. The deadline holds all the same.

    def write_boot(self) -> None:
        boot = {
            "boot": self.boot,
            "keeper": asdict(procs.identify(os.getpid())),
            "supervisor": asdict(procs.identify(self.supervisor)),
            "start_time_unix_ms": now_unix_ms(),
        }
        write_json(self.directory / "boot.json", boot)

    def write_end(self, kind: str, **what: Any) -> None:
        end = {"boot": self.boot, "kind": kind, "time_unix_ms": now_unix_ms(), **what}
        write_json(self.directory / "end.json", end)


def now_unix_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    main()
