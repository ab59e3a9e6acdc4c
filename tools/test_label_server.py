"""Set MONAI Label up, start real servers on this machine and replay what 3D Slicer sends.

    python tools/test_label_server.py [pytest arguments]

Needs Python 3.11 and nothing else; takes about five minutes the first time and three after that.
MONAI Label gets an environment of its own, ``.venv-label`` (see ``label_environment.py``).
"""

import sys
import time

from environment import answer_help, run  # first: refuses an old Python
from label_environment import prepare_label

WORKERS = ["-n", "2", "--dist", "loadfile"]  # each of the two starts the servers that it needs


def main() -> int:
    """Return pytest's exit status."""
    answer_help(__doc__)
    start = time.monotonic()
    python = prepare_label()
    ready = time.monotonic()
    command = ["-m", "pytest", "tests/label_server", *WORKERS, *sys.argv[1:]]
    print(f"\n== label server: python {' '.join(command)}", flush=True)
    # one thread each: the servers share the cores
    status = run(python, command, OMP_NUM_THREADS="1")
    print(f"\nset-up {ready - start:.0f} s, tests {time.monotonic() - ready:.0f} s")
    return status


if __name__ == "__main__":
    sys.exit(main())
