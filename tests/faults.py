"""`python -m tests.faults N -- worker …`: a supervisor that SIGKILLs itself at its Nth system call of a retry.

Counting begins when the first attempt has run (the file RECORD names is not empty). What is counted are the calls by
which a retry, or a dead letter, becomes known to others: sends to the job server, writes and renames on disk.
"""

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

calls = 0


def count(function: Any) -> Any:
    def counted(*arguments: Any, **keywords: Any) -> Any:
        global calls
        if Path(os.environ["RECORD"]).stat().st_size:
            if calls == int(sys.argv[1]):
                os.kill(os.getpid(), signal.SIGKILL)
            calls += 1
        return function(*arguments, **keywords)

    return counted


if __name__ == "__main__":
    socket.socket.send = count(socket.socket.send)  # type: ignore[method-assign]
    socket.socket.recv = count(socket.socket.recv)  # type: ignore[method-assign]
    os.open = count(os.open)
    os.fsync = count(os.fsync)
    Path.replace = count(Path.replace)  # type: ignore[method-assign]
    Path.unlink = count(Path.unlink)  # type: ignore[method-assign]
    from gearwsgi.cli import main

    main(sys.argv[3:])
