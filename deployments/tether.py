"""`python -m deployments.tether MODULE …`: a program that gets SIGTERM when its standard input closes.

So the processes of the local stack end however the one ends that started them, `kill -9` included.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time

PATIENCE_S = 20.0
"""What has not ended then is killed, with all that it started."""


def main() -> object:
    """Run the `main` of the module that is named; returns what it returns."""
    del sys.argv[0]
    program = importlib.import_module(sys.argv[0])
    threading.Thread(target=_watch, daemon=True).start()
    return program.main()


def _watch() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass  # nobody writes to it
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_S)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())  # type: ignore[arg-type]
