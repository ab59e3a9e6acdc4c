"""Draw phantom scans: made-up abdomens with four labelled structures, as NIfTI files.

Every subject has the same structures with the same looks, but another position, size, shape,
brightness, bias field, noise, grid and storage order, so that copying the support's mask or
thresholding its intensities both fail. Everything is drawn from the seed.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from scipy.ndimage import gaussian_filter

from fsmis_components.commands.command_line import command

SHAPE = (160, 144, 24)
WIDTH, HEIGHT = 330.0, 120.0  # mm: thick slices, so that the slice axis is plain
STRUCTURES = {1: "vesselled", 2: "rimmed", 3: "striped", 4: "speckled"}
# (left-right, posterior-anterior, inferior-superior), the body reaching from -1 to 1
CENTRES = {
    1: (-0.40, 0.20, 0.0),
    2: (0.34, 0.34, 0.1),
    3: (0.40, -0.34, -0.1),
    4: (-0.20, -0.47, 0.0),
}
RADII = {
    1: (0.36, 0.36, 0.95),
    2: (0.27, 0.25, 0.80),
    3: (0.31, 0.21, 0.85),
    4: (0.27, 0.19, 0.85),
}
SHIFT = (0.13, 0.12, 0.12)  # how far a structure may lie from its usual place
MUSCLE, FAT, AIR = 260.0, 820.0, 15.0
DISTRACTORS = (480.0, 650.0, 560.0)  # plain tissue as bright as the structures


@dataclass(frozen=True)
class Subject:
    """One phantom in right-anterior-superior order: image and label (X, Y, Z), affine 4x4 in mm."""

    image: np.ndarray
    label: np.ndarray
    affine: np.ndarray


def draw_subject(seed: int, subject: int, shape: tuple[int, int, int] = SHAPE) -> Subject:
    """Return subject number ``subject`` of the phantom family ``seed`` on a grid of ``shape``."""
    rng = np.random.default_rng([seed, subject])
    position = _warped_positions(rng, shape)
    label, depth = _place_structures(rng, position)
    tissue = _tissue(rng, position)
    for structure in STRUCTURES:
        inside = label == structure
        tissue[inside] = _texture(structure, rng, position, depth)[inside]
    return Subject(_scan(rng, tissue, position), label, _oblique_affine(rng, shape))


def write_subject(subject: Subject, image_path: Path, label_path: Path, order: str = "RAS") -> None:
    """Write image (int16) and label (uint8), stored in the axis ``order`` (such as ``LPS``)."""
    target = nibabel.orientations.axcodes2ornt(tuple(order))
    current = nibabel.orientations.axcodes2ornt(("R", "A", "S"))
    turn = nibabel.orientations.ornt_transform(current, target)
    for data, path in ((subject.image, image_path), (subject.label, label_path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        scan = nibabel.Nifti1Image(data, subject.affine)
        scan.header.set_xyzt_units("mm")
        scan.set_qform(subject.affine, code=1)
        scan.set_sform(subject.affine, code=1)
        nibabel.save(scan.as_reoriented(turn), path)


def write_phantom(
    folder: str | Path, seed: int = 0, shape: tuple[int, int, int] = SHAPE
) -> dict[str, Path]:
    """Write a labelled support scan and an unlabelled query scan of another subject.

    Args:
        folder: receives ``support/image_1`` and ``support/label_1``, ``query/image_2`` and, apart
            from the query's, ``scoring/image_2`` and ``scoring/label_2`` (all ``.nii.gz``).
        seed: chooses the two subjects.
        shape: voxels of the support; the query has fewer columns and more slices.

    Returns:
        The three folders by name.
    """
    places = {name: Path(folder) / name for name in ("support", "query", "scoring")}
    write_dataset(places["support"], 1, seed, shape)
    query = draw_subject(seed, 2, (shape[0] - 8, shape[1] + 8, shape[2] + 2))
    scored = places["scoring"] / "image_2.nii.gz"
    write_subject(query, scored, places["scoring"] / "label_2.nii.gz", "LPS")
    places["query"].mkdir(parents=True, exist_ok=True)
    shutil.copy(scored, places["query"])
    return places


def write_dataset(
    folder: str | Path, count: int = 4, seed: int = 0, shape: tuple[int, int, int] = (96, 80, 12)
) -> Path:
    """Write ``count`` labelled subjects into one folder and return it: small food for training."""
    for number in range(1, count + 1):
        subject = draw_subject(seed, number, shape)
        names = (Path(folder) / f"{kind}_{number}.nii.gz" for kind in ("image", "label"))
        write_subject(subject, *names)
    return Path(folder)


def _warped_positions(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Return where each voxel lies in the body, (3, X, Y, Z) in about [-1, 1], smoothly warped."""
    axes = [np.linspace(-1.0, 1.0, size) for size in shape]
    position = np.stack(np.meshgrid(*axes, indexing="ij"))
    for axis, amplitude in enumerate((0.03, 0.03, 0.06)):
        position[axis] += amplitude * _smooth_noise(rng, shape, 0.18)
    shift = rng.uniform(-0.05, 0.05, size=3)
    return position * rng.uniform(1.02, 1.12) + shift[:, None, None, None]


def _place_structures(
    rng: np.random.Generator, position: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the label (X, Y, Z) and how deep each voxel lies in its structure, 0 rim to 1 core."""
    label = np.zeros(position.shape[1:], np.uint8)
    depth = np.zeros(position.shape[1:])
    for structure, centre in CENTRES.items():
        # never near the usual place: two subjects differ, each in its own direction
        shift = np.asarray(SHIFT) * rng.choice([-1, 1], size=3) * rng.uniform(0.6, 1.0, size=3)
        radii = np.asarray(RADII[structure]) * rng.uniform(0.8, 1.15, size=3)
        offset = position - (np.asarray(centre) + shift)[:, None, None, None]
        angle = rng.uniform(-0.6, 0.6)
        x = offset[0] * np.cos(angle) + offset[1] * np.sin(angle)
        y = offset[1] * np.cos(angle) - offset[0] * np.sin(angle)
        across = np.hypot(x / radii[0], y / radii[1])
        # the fourth power along the body: blunt ends, so that most slices show the structure
        inside = (across**2 + (offset[2] / radii[2]) ** 4 < 1) & (label == 0)
        label[inside] = structure
        depth[inside] = 1 - across[inside]
    return label, depth


def _tissue(rng: np.random.Generator, position: np.ndarray) -> np.ndarray:
    """Return the intensities of a body without structures: air, fat, muscle, plain distractors."""
    wall = np.sqrt((position[0] / 0.98) ** 2 + (position[1] / 0.92) ** 2)
    tissue = MUSCLE + 25 * _smooth_noise(rng, wall.shape, 0.05)
    for intensity in DISTRACTORS:
        tissue[_smooth_noise(rng, wall.shape, 0.06) > 1.8] = intensity
    tissue[wall > 0.93] = FAT
    tissue[wall > 1.0] = AIR
    return tissue


def _texture(
    structure: int, rng: np.random.Generator, position: np.ndarray, depth: np.ndarray
) -> np.ndarray:
    """Return the intensities that ``structure`` would have everywhere, (X, Y, Z)."""
    if structure == 1:  # grey with fine bright vessels
        return np.where(_smooth_noise(rng, depth.shape, 0.016) > 0.8, 590.0, 450.0)
    if structure == 2:  # bright, with a brighter rim
        return np.where(depth < 0.25, 720.0, 610.0)
    if structure == 3:  # stripes
        angle = rng.uniform(0.5, 1.1)
        along = position[0] * np.cos(angle) + position[1] * np.sin(angle)
        return 640.0 + 60.0 * np.sign(np.sin(2 * np.pi * 8 * along))
    return 480.0 + 70.0 * _smooth_noise(rng, depth.shape, 0.009)  # coarse speckle


def _scan(rng: np.random.Generator, tissue: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Return what the scanner makes of ``tissue``: blur, bias field, gain, Rician noise; int16."""
    slope = rng.uniform(-0.18, 0.18, size=3)
    uneven = 0.06 * _smooth_noise(rng, tissue.shape, 0.25)
    bias = np.exp(np.tensordot(slope, position, axes=1) + uneven)
    signal = gaussian_filter(tissue, (0.6, 0.6, 0.0)) * bias
    real, imaginary = rng.normal(scale=22.0, size=(2, *tissue.shape))
    gain = rng.uniform(0.6, 1.8)
    return np.round(gain * np.hypot(signal + real, imaginary)).astype(np.int16)


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Return noise of mean 0 and deviation 1, smooth over ``scale`` of half the body's width."""
    sigma = [scale * size / 2 for size in shape]
    noise = gaussian_filter(rng.normal(size=shape), sigma)
    return (noise - noise.mean()) / noise.std()


def _oblique_affine(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Return an affine with tilted axes; the grid spans ``WIDTH`` by ``HEIGHT`` mm."""
    rotation = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(rng.uniform(4, 12, size=3) * rng.choice([-1, 1], 3))):
        turn = np.eye(3)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    affine = np.eye(4)
    affine[:3, :3] = rotation * [WIDTH / shape[0], WIDTH / shape[0], HEIGHT / shape[2]]
    affine[:3, 3] = -affine[:3, :3] @ (np.asarray(shape) / 2) + rng.uniform(-20, 20, size=3)
    return affine


def main(folder: Path, seed: int = 0, small: bool = False) -> None:
    """Write a phantom support scan and a query scan.

    Args:
        folder: receives them.
        seed: chooses the two subjects.
        small: 96 x 80 x 12 voxels.
    """
    for name, place in write_phantom(folder, seed, (96, 80, 12) if small else SHAPE).items():
        print(f"{name:8} {place}")


if __name__ == "__main__":
    sys.exit(command(main))
