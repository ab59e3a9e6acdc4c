"""Set everything up and test: format, lint, types, tests and the site of pages.

    python tools/test.py [--fast] [pytest arguments]

With --fast everything that matters in under three minutes: no test that is marked as slow, no real
volumes, no whole use of a bundle, no site. Needs Python 3.11 or newer and nothing else.
"""

import sys
import time

from environment import answer_help, prepare, run  # first: refuses an old Python

FAST = "--fast"


def steps(arguments: list[str]) -> list[tuple[str, list[str]]]:
    """Return the name and the Python arguments of every step, in order."""
    fast = FAST in arguments
    given = [argument for argument in arguments if argument != FAST]
    workers = [] if any(a.startswith(("-n", "--numprocesses")) for a in given) else ["-n", "2"]
    quick = ["-m", "not slow"] if fast else []
    return [
        ("format", ["-m", "ruff", "format", "--check", "."]),
        ("lint", ["-m", "ruff", "check", "."]),
        ("types", ["-m", "mypy"]),
        ("tests", ["-m", "pytest", *workers, *quick, *given]),
        *([] if fast else [("docs", ["-m", "mkdocs", "build", "--strict"])]),
    ]


def main() -> int:
    """Return 0 if every step passed."""
    answer_help(__doc__)
    python = prepare("dev")
    # one thread each: the tests share the cores among pytest's workers
    variables = {"OMP_NUM_THREADS": "1", "NO_MKDOCS_2_WARNING": "1"}
    if FAST in sys.argv:
        variables["FSMIS_DATA_DIR"] = ""
    results = []
    for name, command in steps(sys.argv[1:]):
        print(f"\n== {name}: python {' '.join(command)}", flush=True)
        start = time.monotonic()
        status = run(python, command, **variables)
        results.append((name, status, time.monotonic() - start))
    print("\n== summary")
    for name, status, seconds in results:
        print(f"{'ok' if status == 0 else 'FAILED':>8}  {name}  ({seconds:.0f} s)")
    return int(any(status for _, status, _ in results))


if __name__ == "__main__":
    sys.exit(main())
