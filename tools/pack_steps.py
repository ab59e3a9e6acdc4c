"""Do steps with a packed bundle in this process, as a person would: one line of JSON per step.

Started by pack_use, in the folder where that person would be.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any


def do(step: dict[str, Any]) -> str:
    """Do one step; return what went wrong, or nothing.

    Args:
        step: ``call`` is ``run``, ``download`` or ``load`` of ``monai.bundle``, ``arguments`` go to
            it, ``makes`` lists what is to be there afterwards.
    """
    import monai.bundle  # after main has set the path
    import torch

    silence = io.StringIO()
    try:
        with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
            result = getattr(monai.bundle, step["call"])(**step["arguments"])
    except (Exception, SystemExit) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        return f"{type(cause).__name__}: {' '.join(str(cause).split())}"[:400]
    if step["call"] == "load" and not isinstance(result, torch.nn.Module):
        return f"gave a {type(result).__name__}, not the network"
    missing = [path for path in step["makes"] if not Path(path).exists()]
    return f"did not write {missing[0]}" if missing else ""


def foreign_package(package: str) -> str:
    """Return where the imported package lies if that is not ``package``, or nothing."""
    imported = getattr(sys.modules.get("fsmis_components"), "__file__", None)
    if imported is None or Path(imported).resolve().parent == Path(package).resolve():
        return ""
    return f"used the package in {Path(imported).parent}, not the bundle's own"


def main() -> None:
    """Do the steps of the plan on the command line; say title and problem of each."""
    # `python -m monai.bundle` puts the folder where it is started first, a script its own
    sys.path[0] = os.getcwd()
    logging.disable(logging.CRITICAL)
    plan = json.loads(sys.argv[1])
    for step in plan["steps"]:
        problem = do(step) or foreign_package(plan["package"])
        print(json.dumps({"title": step["title"], "problem": problem}), flush=True)


if __name__ == "__main__":
    main()
