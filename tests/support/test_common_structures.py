from __future__ import annotations

from fsmis_components.support.common_structures import common_structures
from fsmis_components.support.labelled_volume import LabelledVolume


def volume(**names: int) -> LabelledVolume:
    return LabelledVolume("x", "i", "l", {value: name for name, value in names.items()})


def test_names_decide_what_values_mean() -> None:
    volumes = {volume(liver=1, spleen=2): (1, 2), volume(Spleen=1, gut=2, liver=5): (1, 2, 5)}
    names, values = common_structures(volumes)
    # the gut's own value is the spleen's already
    assert names == {1: "liver", 2: "spleen", 3: "gut"}
    assert values == [{1: 1, 2: 2}, {1: 2, 2: 3, 5: 1}]


def test_labels_without_names_follow_those_with_names() -> None:
    names, values = common_structures({volume(): (1, 4), volume(liver=1): (1,)})
    assert names == {1: "liver", 4: "structure_4"}
    assert values == [{1: 1, 4: 4}, {1: 1}]
    assert common_structures({volume(): (2,)}) == ({2: "structure_2"}, [{2: 2}])
