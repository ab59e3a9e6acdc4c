import torch

from fsmis_components.fitting.student_scans import StudentScan
from fsmis_components.fitting.student_slices import StudentRule, StudentSlices


def scan(name: str, depth: int = 6, value: float = 1.0, labelled: bool = False) -> StudentScan:
    """A bright box of structure 1 in all slices but the first and last, and 2 in one slice."""
    label = torch.zeros(depth, 32, 32, dtype=torch.uint8)
    label[1:-1, 8:20, 8:20] = 1
    label[depth // 2, 22:30, 22:30] = 2
    image = value * (label > 0).half()
    return StudentScan(name, image, label, 5.0, torch.zeros(depth, 2, dtype=torch.bool), labelled)


def test_a_number_names_a_slice() -> None:
    slices = StudentSlices([scan("a"), scan("b", value=2.0)], 2, seed=3)
    again = StudentSlices([scan("a"), scan("b", value=2.0)], 2, seed=3)
    for number in (0, 7, 1000):
        one, other = slices[number], again[number]
        torch.testing.assert_close(one["image"], other["image"], rtol=0, atol=0)
        torch.testing.assert_close(one["label"], other["label"], rtol=0, atol=0)
    assert not torch.equal(slices[0]["image"], slices[1]["image"])
    assert slices.identity == again.identity
    assert slices.identity != StudentSlices([scan("a")], 2, seed=3).identity


def test_labels_are_one_hot_and_doubt_is_told() -> None:
    doubtful = scan("a")
    doubtful.doubtful[:, 1] = True
    slices = StudentSlices([doubtful], 2)
    for number in range(20):
        label = slices[number]["label"]
        assert (label[2] == -1).all()  # nothing is said of it, not even that it is background
        torch.testing.assert_close(label[0], 1.0 - label[1])


def test_structures_are_drawn_alike_however_small() -> None:
    rule = StudentRule(structure_share=1.0, mixed=0.0)
    slices = StudentSlices([scan("a", depth=20)], 2, rule)
    with_small = sum(bool(slices[number]["label"][2].any()) for number in range(200))
    assert 80 < with_small < 140  # one slice in twenty holds it


def test_labelled_scans_are_drawn_more_often() -> None:
    rule = StudentRule(labelled_weight=4.0, mixed=0.0, structure_share=1.0)
    scans = [scan("drawn", labelled=True), *(scan(str(n), value=0.0) for n in range(4))]
    slices = StudentSlices(scans, 2, rule)
    bright = sum(bool(slices[number]["image"].max() > 0.5) for number in range(200))
    assert 75 < bright < 125  # every second time


def test_a_rectangle_comes_from_another_patient_at_the_same_place() -> None:
    # the other one lies three slices higher, and only its box is bright
    low, high = scan("a", value=1.0), scan("b", value=5.0)
    empty = torch.zeros_like(high.label[:3])
    moved = StudentScan(
        "b",
        torch.cat([empty.half(), high.image]),
        torch.cat([empty, high.label]),
        high.spacing,
        torch.zeros(9, 2, dtype=torch.bool),
        labelled=False,
    )
    rule = StudentRule(mixed=1.0, rectangle=(1.0, 1.0), structure_share=1.0)
    slices = StudentSlices([low, moved], 2, rule)
    assert moved.middle - low.middle == 3
    # where all of a slice is replaced, the structures of the other one are met at every place
    assert all(bool(slices[number]["label"][1:].any()) for number in range(30))
