#!/usr/bin/env python3
"""The demo's worker: the same application as in `python -m demo_app`, fed by the queue in place of a socket.

    python gearman-server.py --workers 2

takes the options of `gearwsgi worker`. For an application of your own, change the name at the end.
"""

import os
import sys
from pathlib import Path

from_here = str(Path(__file__).resolve().parent)
os.chdir(from_here)  # demo_app and the state directory are here, wherever this is called from
if from_here not in sys.path:
    sys.path.insert(0, from_here)

from gearwsgi.cli import main  # noqa: E402  (found by the line above where gearwsgi is not installed)

if __name__ == "__main__":
    # A name and not the object: only the worker's children import the application.
    sys.exit(main(["worker", "demo_app:application", *sys.argv[1:]]))
