"""Ends a run when the process that asked for it is gone, however that one ended: a killed one can end nothing any more."""

from __future__ import annotations

import os
import select
import signal
import sys


def follow(descriptor: int) -> None:
    """Have this process and its group killed as soon as nobody holds the writing end of a pipe.

    The kernel does it, whatever the program is doing then; no thread has to be there to see it. Only on Linux, and where a sandbox lets us.

    Args:
        descriptor: of the reading end.
    """
    if sys.platform != "linux":
        return
    import fcntl

    try:
        # Opened anew, since whom to kill is kept with what is open: copies of a nursery have groups of their own. It is never closed.
        own = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(own, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(own, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(own, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
    except OSError:
        return
    poll = select.poll()
    poll.register(own, select.POLLIN)
    if poll.poll(0):  # it is gone already; nothing is ever written
        os.killpg(0, signal.SIGKILL)
