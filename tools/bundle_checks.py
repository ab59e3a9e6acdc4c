"""All checks of a bundle in their order, each answered by one line or by its problems."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import bundle_advice
import bundle_files
import bundle_house
from bundle_files import NOTE, Bundle

Say = Callable[[str], object]


@dataclass(frozen=True)
class Check:
    """One question to a bundle.

    Args:
        title: what it is about.
        ask: returns the problems of a bundle.
        runs: it runs what the bundle's configs say.
        ours: it is asked of this project's bundles only.
    """

    title: str
    ask: Callable[[Bundle], list[str]]
    runs: bool = False
    ours: bool = False


def _later(name: str) -> Callable[[Bundle], list[str]]:
    """Return a check of bundle_runs, which is imported, with torch, when the check is asked."""

    def ask(bundle: Bundle) -> list[str]:
        import bundle_runs

        return getattr(bundle_runs, name)(bundle)

    return ask


CHECKS = (
    Check("files", bundle_files.check_files),
    Check("own files", bundle_house.check_own_files, ours=True),
    Check("advice", bundle_advice.check_advice),
    Check("metadata", bundle_files.check_metadata),
    Check("version and packages", bundle_house.check_versions, ours=True),
    Check("metadata schema", _later("check_schema")),
    Check("run ids", bundle_files.check_run_ids),
    Check("own run ids", bundle_house.check_own_run_ids, ours=True),
    Check("required ids", _later("check_required_ids")),
    Check("network_def", bundle_house.check_network_def, ours=True),
    Check("package", bundle_house.check_package, ours=True),
    Check("own copy", bundle_house.check_own_copy, runs=True, ours=True),
    Check("knobs", bundle_house.check_knobs, ours=True),
    Check("metrics", bundle_house.check_metrics, ours=True),
    Check("network in and out", _later("check_network"), runs=True),
    Check("TorchScript export", _later("check_export"), runs=True),
    Check("support pack", _later("check_support_pack"), runs=True, ours=True),
    Check("train properties", _later("check_training"), runs=True, ours=True),
    Check("evaluate properties", _later("check_evaluation"), runs=True, ours=True),
    Check("inference properties", _later("check_inference"), runs=True, ours=True),
)


def verify(root: Path, say: Say = print, static: bool = False) -> bool:
    """Run every check on the bundle at ``root``, say each result, return whether all passed.

    Configs that cannot be read are all that is said: no check, and no part of MONAI, gets them.
    """
    bundle = Bundle(root.resolve())
    unreadable = bundle_files.check_readable(bundle)
    for problem in unreadable:
        tell(say, "configs", problem)
    if unreadable:
        return False
    ours = bundle.is_ours
    passed = True
    for check in CHECKS:
        if (check.ours and not ours) or (check.runs and static):
            continue
        start = time.monotonic()
        problems = _run_quietly(check.ask, bundle)
        if check.ask is bundle_advice.check_advice and not ours:
            problems = [NOTE + problem for problem in problems]
        seconds = time.monotonic() - start
        passed = passed and all(problem.startswith(NOTE) for problem in problems)
        for problem in problems or ["ok" + (f" ({seconds:.0f} s)" if seconds >= 1 else "")]:
            tell(say, check.title, problem)
    return passed


def tell(say: Say, title: str, text: str) -> None:
    """Say one line of the report."""
    say(f"{title:>22}: {text}")


def _run_quietly(check: Callable[[Bundle], list[str]], bundle: Bundle) -> list[str]:
    """Return the problems that ``check`` finds; what MONAI prints meanwhile is dropped."""
    silence = io.StringIO()
    with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        try:
            return check(bundle)
        except FileNotFoundError as error:
            return [f"{error.filename} is missing: add it"]
        except KeyError as error:
            return [f"the config or key {error} is missing: add it"]
        except (ValueError, TypeError, AttributeError) as error:
            return [f"a config has another form than MONAI's ({error}): mend it"]
