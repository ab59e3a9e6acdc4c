from pathlib import Path

import numpy as np
from block_scans import block_label
from fake_network import IntensityNetwork
from label_studies import submit, write_volume

from fsmis_components.inferers import VolumeInferer
from fsmis_components.inferers.request_answer import keep_drawn
from fsmis_components.label_server import ResolveSupportd
from fsmis_components.support import SupportSource
from fsmis_components.transforms import LoadVolumed


def test_drawn_slices_replace_what_was_segmented_there() -> None:
    label = np.zeros((3, 4, 2), np.uint8)
    label[0], label[1], label[2] = 1, 2, 1
    drawn = np.zeros_like(label)
    drawn[0, 0], drawn[1, :2] = 1, 3
    kept = keep_drawn(label, drawn, 0)
    assert kept[0].tolist() == [[1, 1], [0, 0], [0, 0], [0, 0]]
    # another structure stays where nothing is drawn over it
    assert kept[1].tolist() == [[3, 3], [3, 3], [2, 2], [2, 2]]
    assert (kept[2] == 1).all() and (label[0] == 1).all()


def test_slices_without_a_gap_are_the_whole_structure() -> None:
    label = np.ones((2, 2, 6), np.uint8)
    drawn = np.zeros_like(label)
    drawn[0, 0, 1:4] = 1
    np.testing.assert_array_equal(keep_drawn(label, drawn, 2), drawn)
    drawn[0, 0, 2] = 0
    kept = keep_drawn(label, drawn, 2)
    assert kept.sum((0, 1)).tolist() == [4, 1, 4, 1, 4, 4]


def test_a_scan_is_filled_by_its_own_slices(tmp_path: Path) -> None:
    image = write_volume(tmp_path, "a", 0)
    drawn = block_label({1: 4, 2: 6})
    gaps = [z for z in range(drawn.shape[2]) if z not in (3, 6, 9)]
    drawn[..., gaps] = 0
    drawn[4:8, 4:6, 6] = 0  # a person's outline is kept, also where the image says otherwise
    submit(tmp_path, "a", drawn, {4: "liver", 6: "spleen"})
    data = LoadVolumed("image")({"image": str(image), "image_path": str(image), "support": ["a"]})
    data = ResolveSupportd("image")({**data, "number_structures": True})
    inferer = VolumeInferer(SupportSource(spatial_size=24))
    mask = inferer(data["image"][None], IntensityNetwork())[0, 0].numpy()
    numbered = np.select([drawn == 4, drawn == 6], [1, 2], 0)
    for z in (3, 6):
        np.testing.assert_array_equal(mask[..., z], numbered[..., z])
    whole = block_label()
    between = mask[..., [4, 5, 7]] == whole[..., [4, 5, 7]]
    assert between.mean() > 0.99
