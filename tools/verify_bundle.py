"""Check a bundle as MONAI and the model zoo do, offline, one line per check.

    python tools/verify_bundle.py bundles/ssl_alpnet

Exits with 1 if a check fails. Runs in the environment that tools/test.py makes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import bundle_files
import bundle_runs
from bundle_files import Bundle

CHECKS: tuple[tuple[str, Callable[[Bundle], list[str]]], ...] = (
    ("files", bundle_files.check_files),
    ("version and packages", bundle_files.check_version),
    ("data format", bundle_files.check_data_format),
    ("metadata schema", bundle_runs.check_schema),
    ("run ids", bundle_files.check_run_ids),
    ("network_def", bundle_files.check_network_def),
    ("knobs", bundle_files.check_knobs),
    ("metrics", bundle_files.check_metrics),
    ("network in and out", bundle_runs.check_network),
    ("TorchScript export", bundle_runs.check_export),
    ("train properties", bundle_runs.check_training),
    ("evaluate properties", bundle_runs.check_evaluation),
    ("inference properties", bundle_runs.check_inference),
)


def verify(root: Path, say: Callable[[str], object] = print) -> bool:
    """Run every check on the bundle at ``root``, say each result, return whether all passed."""
    bundle = Bundle(root.resolve())
    passed = True
    for title, check in CHECKS:
        start = time.monotonic()
        problems = _run_quietly(check, bundle)
        seconds = time.monotonic() - start
        passed = passed and not problems
        for problem in problems or ["ok" + (f" ({seconds:.0f} s)" if seconds >= 1 else "")]:
            say(f"{title:>22}: {problem}")
    return passed


def _run_quietly(check: Callable[[Bundle], list[str]], bundle: Bundle) -> list[str]:
    """Return the problems that ``check`` finds; what MONAI prints meanwhile is dropped."""
    silence = io.StringIO()
    with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        try:
            return check(bundle)
        except FileNotFoundError as error:
            return [f"{error.filename} is missing: add it"]
        except json.JSONDecodeError as error:
            return [f"a config is not JSON ({error}): mend it"]
        except KeyError as error:
            return [f"the config or key {error} is missing: add it"]


def main() -> int:
    """Return 0 if the bundle named on the command line passes every check."""
    parser = argparse.ArgumentParser(description="Check a bundle, one line per check.")
    parser.add_argument("bundle", type=Path)
    root = parser.parse_args().bundle
    if not root.is_dir():
        parser.error(f"there is no folder {root}")
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    return int(not verify(root))


if __name__ == "__main__":
    sys.exit(main())
