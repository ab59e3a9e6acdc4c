"""Write what MONAI's model zoo and Hugging Face take of a bundle, as docs/model_zoo.md needs it.

    python tools/zoo_bundle.py bundles/ssl_alpnet --release https://HOST/releases/download/v0.2.0 \
        --project https://HOST/blob/v0.2.0

In the output folder lie `models/NAME/` (for a pull request: no weights, no Python),
`release/` (the weights, to be uploaded to the address that `large_files.yml` names), and
`huggingface/NAME/README.md` (the model card).
"""

from __future__ import annotations

import json
import posixpath
import re
import shutil
import sys
from pathlib import Path

import yaml

import fsmis_components
from fsmis_components.commands.command_line import command
from fsmis_components.data.errors import DataError, writing
from fsmis_components.data.file_hash import file_hash
from pack_bundle import bundle_files
from verify_bundle import check_published, read_metadata

LARGE = "models/"  # what lies here stays out of git
# what Hugging Face reads first; MONAI's own `push_to_hf_hub` takes the licence of the code for that
# of the weights
CARD = {
    "license": "other",
    "license_name": "non-commercial-share-alike-training-data",
    "license_link": "docs/data_license.txt",
    "pipeline_tag": "image-segmentation",
    "library_name": "monai",
    "tags": ["monai", "medical", "segmentation", "few-shot-learning", "mri", "ct"],
}
_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s]+)\)")


def zoo_bundle(
    bundle: Path, release: str, project: str, output: Path = Path("dist/model-zoo")
) -> None:
    """Write a bundle for the zoo, its weights for upload, and its card, and say where.

    Args:
        bundle: a bundle's folder in the repository.
        release: address below which the files of `release/` will be found.
        project: address of this repository's files at this version, for links in pages.
        output: receives `models/`, `release/` and `huggingface/`.
    """
    root = bundle.resolve()
    for knob, address in (("release", release), ("project", project)):
        if not re.match(r"(https?|file)://", address):
            raise DataError(f"--{knob} {address}: give an address that begins with https://.")
    if problems := check_published(root):
        raise DataError(f"{root.name}: {'; '.join(problems)}.")
    target, uploads = output / "models" / root.name, output / "release"
    card = output / "huggingface" / root.name / "README.md"
    if target.exists():
        raise DataError(f"{target} is there already: remove it, or name another --output.")
    metadata = read_metadata(root)
    # the zoo's bundle carries no Python: its tests install what this names
    metadata["required_packages_version"]["fsmis-components"] = fsmis_components.__version__
    large = []
    with writing(output, "name another folder with --output"):
        for folder in (target, uploads, card.parent):
            folder.mkdir(parents=True, exist_ok=True)
        for name, path in bundle_files(root).items():
            if name.startswith(LARGE):
                upload = f"{root.name}_v{metadata['version']}_{path.name}"
                shutil.copyfile(path, uploads / upload)
                address = f"{release.rstrip('/')}/{upload}"
                hashed = {"hash_val": file_hash(path), "hash_type": "sha256"}
                large.append({"path": name, "url": address, **hashed})
                continue
            place = target / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".md":
                place.write_text(_with_addresses(path, root, project), encoding="utf-8")
            else:
                shutil.copyfile(path, place)
        text = json.dumps(metadata, indent=2, ensure_ascii=False) + "\n"
        (target / "configs" / "metadata.json").write_text(text, encoding="utf-8")
        text = yaml.safe_dump({"large_files": large}, sort_keys=False, width=1000)
        (target / "large_files.yml").write_text(text, encoding="utf-8")
        page = _with_addresses(root / "docs" / "README.md", root, project, all_links=True)
        front = yaml.safe_dump(CARD, sort_keys=False)
        card.write_text(f"---\n{front}---\n\n{page}", encoding="utf-8")
    print(f"pull request: {target}\nupload to {release}: {uploads}\nmodel card: {card}")


def _with_addresses(page: Path, root: Path, project: str, all_links: bool = False) -> str:
    """Return a page whose links lead out of the bundle, or all of them, by address."""
    top = root.parents[1]

    def linked(match: re.Match[str]) -> str:
        place = page.parent.relative_to(top).as_posix()
        target = posixpath.normpath(posixpath.join(place, match[1]))
        inside = target.startswith(root.relative_to(top).as_posix() + "/")
        return match[0] if inside and not all_links else f"]({project.rstrip('/')}/{target})"

    return _LINK.sub(linked, page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(command(zoo_bundle))
