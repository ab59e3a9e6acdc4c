"""The command `fsmis`: label one to five scans, and the others follow.

fsmis segment SCANS --labelled DIR    masks for a folder of scans
fsmis fit SCANS --labelled DIR        the same by a small network of the folder's own
fsmis cluster SCANS --labelled DIR    masks as by segment, made by the machines of a Ray cluster
fsmis suggest SCANS                   which scan to label next
fsmis label SCANS                     MONAI Label for 3D Slicer, on this machine
fsmis train SCANS                     adapts a method to your own unlabelled scans
fsmis benchmark evaluate ...          methods compared; also: train, report
fsmis prepare SOURCE DOWNLOAD         a public data set as the benchmark reads it
fsmis pack BUNDLE                     a bundle as one file; fsmis download NAME ADDRESS fetches one

fsmis COMMAND --help tells the options. What is run is printed first.
"""

import difflib
import importlib
import sys

from fsmis_components.commands import front_door
from fsmis_components.commands.command_line import command, say

_COMMANDS = ("segment", "fit", "train", "label", "pack", "download")
# modules that take seconds to import
_LATE = {"suggest": "suggest", "cluster": "cluster", "prepare": "prepare_data"}


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands; return its exit status."""
    words = [
        word.replace("--labeled", "--labelled")
        for word in (sys.argv[1:] if arguments is None else arguments)
    ]
    if words[:1] == ["benchmark"]:
        try:
            from fsmis_components.commands import benchmark
        except ModuleNotFoundError as error:
            print(
                f"benchmark: {error.name} is not installed here; pip install '.[benchmark]'.",
                file=sys.stderr,
            )
            return 1
        return benchmark.main(words[1:])
    if words and words[0] in _LATE:
        module = importlib.import_module(f"fsmis_components.commands.{_LATE[words[0]]}")
        return command({words[0]: getattr(module, words[0])}, words, joined=False)
    if not words or words[0] in ("help", "-h", "--help"):
        say((__doc__ or "").strip())
        return 0 if words else 1
    if words[0] not in _COMMANDS:
        near = difflib.get_close_matches(words[0], [*_COMMANDS, *_LATE, "benchmark"], 1)
        meant = f"did you mean {near[0]}?" if near else "see fsmis --help."
        print(f"{words[0]}: there is no such command; {meant}", file=sys.stderr)
        return 1
    return command({name: getattr(front_door, name) for name in _COMMANDS}, words, joined=False)


if __name__ == "__main__":
    sys.exit(main())
