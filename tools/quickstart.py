"""Set everything up and segment: a made-up pair of scans, or yours.

    python tools/quickstart.py
    python tools/quickstart.py --support_dir LABELLED --query_dir SCANS [--output_dir MASKS]

Needs Python 3.11 or newer and nothing else; the first run installs into .venv, the next ones are
quick.
"""

import argparse
import shlex
import shutil
import sys
from pathlib import Path

from environment import REPOSITORY, SetupError, prepare, run  # first: refuses an old Python

BUNDLE = "bundles/ssl_alpnet"
WORK = REPOSITORY / "outputs" / "quickstart"
PHANTOM_MASKS = "phantom_masks"


def main() -> int:
    """Return the exit status of the whole: 0 if masks were written."""
    folders = _parse(sys.argv[1:])
    try:
        python = prepare()
    except SetupError as error:
        print(error)
        return 1
    if folders.support_dir is None:
        print("\nDrawing two phantom subjects: one is labelled, the other is to be segmented.")
        phantom = WORK / "phantom"
        # our own drawings of an earlier run, perhaps of other weights
        shutil.rmtree(phantom, ignore_errors=True)
        shutil.rmtree(WORK / PHANTOM_MASKS, ignore_errors=True)
        if run(python, ["tools/phantom.py", phantom, "--seed", "3"]):
            return 1
        folders.support_dir, folders.query_dir = phantom / "support", phantom / "query"
        folders.label_dir = phantom / "scoring"
    command = inference_command(folders.support_dir, folders.query_dir, folders.output_dir)
    print(f"\nSegmenting. The command:\n  {shlex.join(['python', *command])}\n", flush=True)
    if run(python, command, PYTHONWARNINGS="ignore"):
        print("\nThe segmentation stopped; the last line above says why.")
        return 1
    return run(
        python,
        [
            "tools/compare_masks.py",
            *("--support_dir", folders.support_dir),
            *("--label_dir", folders.label_dir),
            *("--mask_dir", folders.output_dir),
        ],
    )


def inference_command(support: Path, query: Path, output: Path) -> list[str]:
    """Return the bundle's inference command, without the Python that runs it."""
    return [
        *("-m", "monai.bundle", "run"),
        *("--config_file", f"{BUNDLE}/configs/inference.json", "--bundle_root", BUNDLE),
        *("--support_dir", str(support), "--dataset_dir", str(query), "--output_dir", str(output)),
    ]


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Set everything up and segment a phantom, or your scans with --support_dir "
        "and --query_dir."
    )
    help_support = "folder of image_*.nii.gz and label_*.nii.gz: one to five labelled scans"
    parser.add_argument("--support_dir", type=_folder, help=help_support)
    parser.add_argument("--query_dir", type=_folder, help="folder of scans to segment")
    parser.add_argument("--output_dir", type=Path, default=None, help="receives the masks")
    folders = parser.parse_args(arguments)
    if (folders.support_dir is None) != (folders.query_dir is None):
        parser.error("--support_dir and --query_dir go together: give both or neither")
    name = PHANTOM_MASKS if folders.support_dir is None else "masks"
    folders.output_dir = (folders.output_dir or WORK / name).resolve()
    folders.label_dir = folders.query_dir
    return folders


def _folder(text: str) -> Path:
    folder = Path(text).resolve()
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {folder}")
    return folder


if __name__ == "__main__":
    sys.exit(main())
