import warnings
from pathlib import Path

import numpy as np
import pytest

from fsmis_components.transforms import pseudo_labels as module
from fsmis_components.transforms.pseudo_labels import PseudoLabels


@pytest.fixture
def volume() -> np.ndarray:
    rng = np.random.default_rng(0)
    volume = np.zeros((4, 24, 24), dtype=np.float32)
    volume[:, 3:21, 3:21] = rng.normal(10, 1, (4, 18, 18))
    return volume


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    original = module.supervoxel_labels

    def counted(*args):
        calls.append(1)
        return original(*args)

    monkeypatch.setitem(module.KINDS, "supervoxel", (counted, *module.KINDS["supervoxel"][1:]))
    return calls


def test_cache_hit_does_not_compute_again(volume, calls, tmp_path: Path) -> None:
    pseudo_labels = PseudoLabels(min_size=60, cache_dir=tmp_path / "new" / "folder")
    first = pseudo_labels(volume)
    assert np.array_equal(pseudo_labels(volume.copy()), first)
    assert len(calls) == 1
    assert [path.suffix for path in (tmp_path / "new" / "folder").iterdir()] == [".npz"]


@pytest.mark.parametrize("content", [b"", None, "flipped", "text"])
def test_corrupted_cache_is_computed_again(content, volume, calls, tmp_path: Path) -> None:
    pseudo_labels = PseudoLabels(min_size=60, cache_dir=tmp_path)
    first = pseudo_labels(volume)
    (path,) = tmp_path.iterdir()
    if content is None:  # cut short
        path.write_bytes(path.read_bytes()[:-200])
    elif content == "flipped":
        damaged = bytearray(path.read_bytes())
        damaged[len(damaged) // 2] ^= 0xFF
        path.write_bytes(bytes(damaged))
    elif content == "text":  # objects would need pickle
        np.savez_compressed(path, labels=np.array([{"a": 1}], dtype=object))
    else:
        path.write_bytes(content)
    with pytest.warns(UserWarning, match="unusable .* computed again"):
        assert np.array_equal(pseudo_labels(volume), first)
    assert len(calls) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pseudo_labels(volume)  # repaired
    assert len(calls) == 2


def test_key_depends_on_content_settings_and_version(volume, monkeypatch) -> None:
    base = PseudoLabels()
    key = base.cache_key(volume)
    assert key == PseudoLabels(min_size=5000, sigma=0.8, cache_dir="elsewhere").cache_key(volume)
    changes = ({"min_size": 100}, {"sigma": 2}, {"body_fraction": 0.2}, {"kind": "superpixel"})
    others = [PseudoLabels(**change) for change in changes]
    keys = {key, *(other.cache_key(volume) for other in others), base.cache_key(volume + 1)}
    keys.add(base.cache_key(volume.reshape(2, 48, 24)))
    monkeypatch.setattr(module, "ALGORITHM_VERSION", -1)
    keys.add(base.cache_key(volume))
    assert len(keys) == 8


def test_rejects() -> None:
    with pytest.raises(ValueError, match="got 'voxels'"):
        PseudoLabels(kind="voxels")  # type: ignore[arg-type]


def test_organs_of_a_real_scan_are_few_regions(fsmis_data_dir: Path) -> None:
    """Kidneys and spleen are each found by one supervoxel: what the training lives on."""
    nibabel = pytest.importorskip("nibabel")
    folder = fsmis_data_dir / "chaos_t2"
    image = np.asarray(nibabel.load(folder / "image_1.nii.gz").dataobj, dtype=np.float32)
    label = np.asarray(nibabel.load(folder / "label_1.nii.gz").dataobj).T
    image = np.minimum(image, np.quantile(image, 0.995)).T
    labels = PseudoLabels()((image - image.mean()) / image.std())
    for structure in (2, 3, 4):
        organ = label == structure
        region = labels == np.bincount(labels[organ])[1:].argmax() + 1
        dice = 2 * (organ & region).sum() / (organ.sum() + region.sum())
        assert dice > 0.8, (structure, dice)
