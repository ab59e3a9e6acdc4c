"""Registration with ANTs, what a lab without a network would do: atlases bent onto the scan."""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from fsmis_components.data.errors import needed
from fsmis_components.data.volumes import Volume
from fsmis_components.evaluation.subjects.base import Group, Subject
from fsmis_components.inferers.segmentation import label_values
from fsmis_components.support.support_set import SupportSet

_SEED = 1  # of the points at which the affine part samples the metric
_TO_LPS = np.array([-1.0, -1.0, 1.0])  # NIfTI's world axes point right and front, ITK's do not


class AntsSyN(Subject):
    """Register every support scan to the query; its labels, bent alike, are the answer.

    Affine, then symmetric diffeomorphic registration (SyN, Avants et al., Medical Image Analysis
    2008) by ANTs' own defaults, mutual information, no masks. Each structure is bent with linear
    interpolation; over several support scans the mean decides (soft majority), and a voxel goes to
    the structure with most, or to none of them.

    Args:
        transform: what ANTs is to do, a name of its `type_of_transform`; "SyNCC" is slower.

    Raises:
        DataError: antspyx is not installed.
    """

    name = "ants_syn"
    labelled = ("all",)

    def __init__(self, transform: str = "SyN") -> None:
        self.ants = needed("ants", "ants_syn: antspyx is missing; pip install '.[registration]'.")
        # one thread, else sums come in another order each time
        self.ants.config.set_ants_deterministic(True, seed_value=_SEED)
        self.transform = transform

    def identity(self, fold: int, group: Group) -> dict[str, Any]:
        """See `Subject.identity`."""
        return {"transform": self.transform, "ants": str(self.ants.__version__)}

    def predict(self, support: SupportSet, query_image: Volume) -> np.ndarray:
        """See `Subject.predict`."""
        values = [structure.value for structure in support.structures]
        shares = np.zeros((len(values), *query_image.shape), np.float32)
        fixed = self._image(query_image)
        for scan in support.scans:
            with TemporaryDirectory() as folder:  # ANTs keeps what it finds in files
                found = self.ants.registration(
                    fixed,
                    self._image(scan.image),
                    self.transform,
                    outprefix=f"{folder}/",
                    random_seed=_SEED,
                )
                for index, value in enumerate(values):
                    structure = Volume(np.asarray(scan.label.data) == value, scan.label.affine)
                    bent = self.ants.apply_transforms(
                        fixed, self._image(structure), found["fwdtransforms"], "linear"
                    )
                    shares[index] += bent.numpy() / len(support.scans)
        nothing = 1 - shares.sum(0, keepdims=True)
        return label_values(values)[np.concatenate([nothing, shares]).argmax(0)]

    def _image(self, volume: Volume) -> Any:
        """A volume as ANTs takes it: in float32, in the same place."""
        axes = np.asarray(volume.affine)[:3, :3]
        spacing = np.linalg.norm(axes, axis=0)
        return self.ants.from_numpy(
            np.asarray(volume.data, np.float32),
            origin=(np.asarray(volume.affine)[:3, 3] * _TO_LPS).tolist(),
            spacing=spacing.tolist(),
            direction=axes / spacing * _TO_LPS[:, None],
        )
