"""A bundle in Python: its network and inference as its own config describes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from fsmis_components.data.atomic import check_writable
from fsmis_components.data.errors import DataError, errors_of_commands
from fsmis_components.data.shipped_bundles import bundle_folder
from fsmis_components.data.volumes import Volume, load_image, save_mask
from fsmis_components.data.weights import fill_network
from fsmis_components.encoding import ScanEncoder
from fsmis_components.encoding.engine import use_engine
from fsmis_components.inferers import FolderEvaluator, Segmentation, VolumeInferer
from fsmis_components.support import SupportPack, SupportSet, SupportSource, build_support_pack
from fsmis_components.support.encode import with_mirrored

UNTRAINED = "untrained"
_GEOMETRY = ("spatial_size", "modality", "slice_axis", "ignore_spacing", "fuse_planes")


class Bundle:
    """What `configs/inference.json` of a bundle describes, with weights in its network.

    `bundle_root` is its folder, or the name of a shipped one; `weights` are "shipped", "untrained"
    (random ones) or a file; `knobs` are values for those of the config. No bundle there, no such
    knob, or weights of another network are a `DataError`.

    Examples:
        >>> bundle = load_bundle("ssl_alpnet")  # doctest: +SKIP
        >>> support = bundle.support("labelled")  # doctest: +SKIP
        >>> result = bundle.segment("scan.nii.gz", support, "mask.nii.gz")  # doctest: +SKIP
        >>> result.expected_dice, result.warnings  # doctest: +SKIP
    """

    def __init__(
        self,
        bundle_root: str | Path,
        weights: str | Path = "shipped",
        knobs: Mapping[str, Any] | None = None,
    ) -> None:
        self.root = bundle_folder(bundle_root)
        self.knobs = dict(knobs or {})
        self.weights = weights
        parser = parsed_config(self.root, "inference", {**self.knobs, "stored_support": None})
        with torch.random.fork_rng(devices=[]), errors_of_commands():
            torch.manual_seed(0)  # of untrained weights
            network = parser.get_parsed_content("network_def")
            device = parser.get_parsed_content("device")
            self.network = network.to(device, memory_format=torch.channels_last)
            self.inferer: VolumeInferer = parser.get_parsed_content("inferer")
            self.geometry = {knob: parser.get_parsed_content(knob) for knob in _GEOMETRY}
        if weights != UNTRAINED:
            path = self.root / "models" / "model.pt" if weights == "shipped" else Path(weights)
            fill_network(self.network, path)
        with errors_of_commands():
            use_engine(self.network, parser["engine"], self.inferer.amp)

    def support(self, labelled: str | Path | SupportSet, **wanted: Any) -> SupportPack:
        """Encode labelled scans once, for any number of scans to segment.

        `labelled` is a folder of scans and labels, a stored pack, or loaded scans; what cannot be
        used is a `DataError`. `wanted` are `support_ids`, `structures`, `num_shots` or
        `labelled_slices` of a folder, see `SupportSource`; `structures` also of a pack.
        """
        encoding: dict[str, Any] = {"batch_size": self.inferer.batch_size, "amp": self.inferer.amp}
        if isinstance(labelled, SupportSet):
            pack = build_support_pack(self.network, labelled, **self.geometry, **encoding)
            encoder = ScanEncoder(self.network, **encoding)
            return with_mirrored(encoder, pack, labelled.scans[0].image)
        place = "support_dir" if Path(labelled).is_dir() else "support_pack"
        given = {place: labelled, **self.geometry, **encoding, **wanted}
        source = SupportSource(self_test=True, **given)
        return VolumeInferer(source, **encoding).resolve(self.network)

    def segment(
        self,
        scan: str | Path | Volume,
        support: SupportPack | str | Path | SupportSet,
        output: str | Path | None = None,
    ) -> Segmentation:
        """Segment one scan: labels on its own grid, and what is expected of them.

        Args:
            scan: a file, or a volume that was read.
            support: what `support` gives, or takes.
            output: file for the mask, with the scan's header; None: none.

        Raises:
            DataError: scan or support cannot be used, or the mask cannot be written.
        """
        if output is not None:
            with errors_of_commands():
                check_writable(Path(output).parent)
        pack = support if isinstance(support, SupportPack) else self.support(support)
        volume = scan if isinstance(scan, Volume) else load_image(scan)
        result = self.inferer.segment_volume(volume, self.network, pack)
        if output is not None:
            save_mask(Path(output), result.label, like=volume)
        return result

    def segment_folder(
        self, scans: str | Path, output_dir: str | Path, support: str | Path, **knobs: Any
    ) -> None:
        """Do what the command `monai.bundle run` does with the bundle's `inference.json`.

        `output_dir` receives masks, pictures, a table and a report; `support` is a folder of
        labelled scans or a stored pack, `knobs` are further ones of the config. As the command
        would end, a `DataError` is raised; of scans that failed when all others are done.
        """
        source = "support_dir" if Path(support).is_dir() else "support_pack"
        places = {"dataset_dir": scans, "output_dir": output_dir, source: support}
        given = {knob: str(value) for knob, value in places.items()}
        given["weights"] = str(self.weights)
        evaluator = folder_evaluator(
            parsed_config(self.root, "inference", self.knobs | given | knobs)
        )
        with errors_of_commands():
            evaluator.run()


def folder_evaluator(parser: ConfigParser) -> FolderEvaluator:
    """The evaluator of a bundle's `inference.json`, ready to run.

    That a knob or the weights cannot be used, or that there is no scan, is a `DataError`.
    """
    with errors_of_commands():
        parser.get_parsed_content("initialize")
        evaluator: FolderEvaluator = parser.get_parsed_content("evaluator")
    return evaluator


def parsed_config(root: Path, name: str, knobs: Mapping[str, Any]) -> ConfigParser:
    """A config of a bundle, such as "inference", with values for some of its knobs.

    That there is no such config, or no such knob in it, is a `DataError`.
    """
    path = root / "configs" / f"{name}.json"
    if not path.is_file():
        raise DataError(f"{root}: no bundle there (no configs/{name}.json); name one.")
    parser = ConfigParser()
    parser.read_config(str(path))
    given = {"bundle_root": str(root), **knobs}
    unknown = sorted(knob for knob in given if knob not in parser)
    if unknown:
        raise DataError(f"{root}: the bundle has no knob {', '.join(unknown)}; see its docs.")
    for knob, value in given.items():
        parser[knob] = value
    return parser


def load_bundle(bundle_root: str | Path, weights: str | Path = "shipped", **knobs: Any) -> Bundle:
    """Load a bundle with its weights; see `Bundle`."""
    return Bundle(bundle_root, weights, knobs=knobs)
