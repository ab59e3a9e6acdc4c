"""Set everything up and segment: two CT scans that lie here, or yours.

    python tools/quickstart.py
    python tools/quickstart.py --support_dir LABELLED --query_dir SCANS [--output_dir MASKS]

Needs Python 3.11 or newer and nothing else; the first run installs into .venv, the next ones are
quick.
"""

import argparse
import sys
from pathlib import Path

from environment import REPOSITORY, prepare, run  # first: refuses an old Python

EXAMPLE = REPOSITORY / "tools" / "example_ct"
WORK = REPOSITORY / "outputs" / "quickstart"


def main() -> int:
    """Return the exit status of the whole: 0 if masks were written."""
    folders = _parse(sys.argv[1:])
    python = prepare()
    words = [folders.query_dir, "--labelled", folders.support_dir, "--output", folders.output_dir]
    print("\nSegmenting, by this command:", flush=True)
    if run(python, ["-m", "fsmis_components", "segment", *words]):
        print("\nThe segmentation stopped; the last line above says why.")
        return 1
    words = ["--label_dir", folders.query_dir, "--mask_dir", folders.output_dir]
    status = run(python, ["tools/compare_masks.py", *words])
    print(f"\nLook at the result in a browser:\n  {folders.output_dir / 'report.html'}")
    return status


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Set everything up and segment a CT scan by another one, or your scans with "
        "--support_dir and --query_dir."
    )
    help_support = "folder of image_*.nii.gz and label_*.nii.gz: one to five labelled scans"
    parser.add_argument("--support_dir", type=_folder, help=help_support)
    parser.add_argument("--query_dir", type=_folder, help="folder of scans to segment")
    parser.add_argument("--output_dir", type=Path, default=None, help="receives the masks")
    folders = parser.parse_args(arguments)
    own = folders.support_dir is not None
    if own != (folders.query_dir is not None):
        parser.error("--support_dir and --query_dir go together: give both or neither")
    if not own:
        folders.support_dir, folders.query_dir = EXAMPLE / "labelled", EXAMPLE / "scans"
    masks = WORK / ("masks" if own else "example_masks")
    folders.output_dir = (folders.output_dir or masks).resolve()
    return folders


def _folder(text: str) -> Path:
    folder = Path(text).resolve()
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {folder}")
    return folder


if __name__ == "__main__":
    sys.exit(main())
