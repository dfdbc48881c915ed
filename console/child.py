"""Starts one child so that it cannot outlive the supervisor, then gets out of the way.

Run by path with `python -I -S` (no site-packages: 15 ms): `child.py MODE SUPERVISOR_PID COMMAND...`. With MODE
`deathsig` the kernel kills the command when the supervisor dies (Linux). With `watch` this process stays and kills
the command when its stdin, a pipe the supervisor holds open, closes (macOS).
"""

import os
import signal
import subprocess
import sys
import threading
from typing import NoReturn

CANNOT_RUN = 127
PR_SET_PDEATHSIG = 1


def main() -> NoReturn:
    """Do what the command line says; only returns by ending."""
    mode, supervisor_pid, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    try:
        if mode == "deathsig":
            _become(command, supervisor_pid)
        else:
            _watch(command)
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be run: {error.strerror}\n")
        sys.exit(CANNOT_RUN)


def _become(command: list[str], supervisor_pid: int) -> NoReturn:
    import ctypes  # 5 ms that the other mode need not pay

    # SIGKILL: a drain without the supervisor's order would only hold the ports against the next `hub up`.
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != supervisor_pid:  # it died before the line above and nobody would tell us
        sys.exit(1)
    _restore_signals()
    os.execvp(command[0], command)  # noqa: S606 (no shell is wanted)


def _watch(command: list[str]) -> NoReturn:
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []  # what came before there was a process to hand it to

    def hand_on(number: int, _: object) -> None:
        if process is None:
            early.append(number)
        else:
            process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, hand_on)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    for came in early:
        process.send_signal(came)

    def kill_when_the_pipe_closes() -> None:
        while os.read(0, 1):
            pass
        os.killpg(0, signal.SIGKILL)  # the session is our own, so this ends the command, its children and us

    threading.Thread(target=kill_when_the_pipe_closes, daemon=True).start()
    status = process.wait()
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


def _restore_signals() -> None:
    """Give the command the signal dispositions a shell would; Python ignores two and exec would hand that on."""
    for name in ("SIGPIPE", "SIGXFSZ"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)


if __name__ == "__main__":
    main()
