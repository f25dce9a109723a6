"""The process that computes: jobs come by standard input, answers go to standard output, each a length and a pickle.

It is run by its file: a name like `-m package.module` would let the folder that the editor works in hide our own modules.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any


def main() -> None:
    """Answer until the input ends; then go at once, whatever is being computed."""
    sys.path[:1] = []
    sys.path.append(str(Path(__file__).resolve().parent.parent.parent))
    from flake8_torchmem.lsp.pipes import read_frame, write_frame

    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nobody else writes between the answers
    jobs: SimpleQueue[Any] = SimpleQueue()

    def listen() -> None:
        while (job := read_frame(source)) is not None:
            jobs.put(job)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    from flake8_torchmem.lsp.work import do

    while True:
        write_frame(sink, do(jobs.get()))


if __name__ == "__main__":
    main()
