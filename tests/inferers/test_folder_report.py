import re
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from block_scans import block_label, write_scan
from fake_network import IntensityNetwork
from html_pages import Page, checked_page
from markupsafe import escape

from fsmis_components.data.run_record import DONE, FAILED, CaseRow
from fsmis_components.inferers.folder_report import write_folder_report
from fsmis_components.support import Structure, SupportPack, build_support_pack, load_support_set
from fsmis_components.support.calibration import Calibration, StructureTest

STRUCTURES = (Structure("liver", 1, "#ff0000"), Structure("Left kidney", 7, "#00ff00"))
INFERER = {"amp": False, "k": [], "two": ["a", "b"], "steps": {f"step_{n}": n for n in range(7)}}
SETTINGS = {"support": "ab" * 32, "inferer": INFERER, "version": "9"}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> SupportPack:
    folder = tmp_path_factory.mktemp("support")
    write_scan(folder, 1, block_label())
    made = build_support_pack(IntensityNetwork(), load_support_set(folder), spatial_size=24)
    return replace(made, structures=STRUCTURES, source="labelled", method="ALPNet")


def done(case: str, liver: float = 100.0, kidney: float = 50.0) -> CaseRow:
    return CaseRow(case, DONE, 2.5, {"liver": liver, "left_kidney": kidney})


def page(folder: Path, pack: SupportPack, *rows: CaseRow) -> tuple[str, Page]:
    unused = [(f"p<{number}>", "a <label>") for number in range(202)]
    path = write_folder_report(folder, rows, pack, SETTINGS, unused)
    text = path.read_text()
    return text, checked_page(text)


def draw(folder: Path, case: str) -> None:
    (folder / "overlays").mkdir(exist_ok=True)
    matplotlib.image.imsave(folder / "overlays" / f"{case}.png", np.zeros((20, 30, 3)))


def cells(text: str, first: str) -> list[str]:
    """The cells of the row that begins with a text, tags left out."""
    for row in re.findall(r"<tr.*?</tr>", text, flags=re.DOTALL):
        found = [re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[dh].*?</t[dh]>", row)]
        if found and found[0] == first:
            return found
    raise AssertionError(f"no row {first}")


def test_expected_dice_warnings_and_the_supports_test_of_itself(
    tmp_path: Path, pack: SupportPack
) -> None:
    row = done("image_2")
    row.expected_dice = {"liver": 0.876, "left_kidney": 0.41}
    row.warning = "The scan does not look like the support."
    tests = (StructureTest(0.88, 0.04, 3, "scans"), StructureTest(0.5, 0.2, 4, "slices"))
    text, _ = page(tmp_path, replace(pack, calibration=Calibration(tests)), row)
    found = cells(text, "image_2")
    assert found[1:3] == ["done", "64 %"]
    assert found[3] == "Left kidney: expected Dice 41 %. The scan does not look like the support."
    assert found[4:] == ["100.088 %", "50.0 !41 %", "2.5"]  # volume, and below it the Dice
    assert "Left kidney 50.0 ml, expected Dice 41 %" in re.sub("<.*?>", "", text)
    assert cells(text, "liver")[-1] == "88 ± 4 (3 scans held out)"
    assert cells(text, "Left kidney")[-1] == "uncertain, 50 ± 20 (4 blocks of slices held out)"


def test_failures_come_first_with_their_message(tmp_path: Path, pack: SupportPack) -> None:
    failed = CaseRow("image_9", FAILED, 0.1, {}, "image_9: not a NIfTI <file>.")
    text, links = page(tmp_path, pack, done("image_2"), failed)
    assert "1 scan failed and was not segmented" in text
    assert cells(text, "image_9")[3] == "image_9: not a NIfTI &lt;file&gt;."
    assert "scan-image_9" not in links.ids and "scan-image_2" in links.ids
    text, _ = page(tmp_path, pack, failed)
    assert "in 0 scans" in text and "Pictures" not in text and "0 of 0" in text


def test_the_worst_comes_first(tmp_path: Path, pack: SupportPack) -> None:
    rows = [done(f"image_{number}") for number in range(6)]
    for row, dice in zip(rows, (0.9, 0.7, 0.8, 0.75), strict=False):
        row.expected_dice = {"liver": dice, "left_kidney": dice}
    rows[2].warning = "The scan is odd."
    rows[0].volumes["liver"] = 0
    failed = CaseRow("image_9", FAILED, 0.1, {}, "image_9: no scan.")
    text, _ = page(tmp_path, pack, *rows, failed)
    names = [f"image_{number}" for number in (9, 2, 0, 1, 3, 4, 5)]
    assert re.findall('<tr id="row-(.*?)"', text) == names
    assert re.findall('id="scan-(.*?)"', text) == names[1:]


def test_a_remark_leads_to_the_scan_and_the_scan_back(tmp_path: Path, pack: SupportPack) -> None:
    row = done("image_2", liver=0)
    row.slices = 30
    for place in ("scans/image_2.jpg", "masks/image_2.png"):
        _, links = page(tmp_path, pack, row)
        assert not links.loaded  # of a run that was interrupted, or of an older version
        path = tmp_path / "overlays" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    text, links = page(tmp_path, pack, row, done("image_3"))
    assert links.loaded == ["overlays/scans/image_2.jpg", "overlays/masks/image_2.png"]
    assert all((tmp_path / address).is_file() for address in links.loaded)
    assert '<a href="#scan-image_2">liver: not found</a>' in text
    assert links.targets.count("row-image_2") == 1 and 'data-slices="30"' in text
    assert len(links.scripts) == 1


@pytest.mark.parametrize(
    ("others", "liver", "hint"),
    [
        # half is as far as double: the median of the logarithms' deviations is 0, so a tenth is
        # the unit, exp(0.35) = 1.419
        ([100] * 5, 141, ""),
        ([100] * 5, 142, "liver: 1.4 times the median of 100.0 ml"),
        ([100] * 5, 71, ""),
        ([100] * 5, 70, "liver: 0.7 times the median of 100.0 ml"),
        # a folder that varies allows more
        ([50, 70, 100, 140, 200], 300, ""),
        ([50, 70, 100, 140, 200], 3000, "liver: 25 times the median of 120.0 ml"),
        # few scans make no outlier but show what is missing
        ([100] * 3, 1000, ""),
        ([100] * 3, 0, "liver: not found"),
    ],
)
def test_volumes_far_from_the_median_are_marked(
    tmp_path: Path, pack: SupportPack, others: list[float], liver: float, hint: str
) -> None:
    rows = [done(f"image_{number}", volume) for number, volume in enumerate(others)]
    text, _ = page(tmp_path, pack, *rows, done("image_8", liver))
    assert cells(text, "image_8")[3] == hint
    assert all(cells(text, row.case)[3] == "" for row in rows)
    assert text.count('class="right hint"') == bool(hint)
    assert text.count(f'<p class="hint">{hint}</p>') == bool(hint)


def test_names_are_text(tmp_path: Path, pack: SupportPack) -> None:
    case = "a #1 %20 \"<b>&'é<script>"
    draw(tmp_path, case)
    for place in (f"scans/{case}.jpg", f"masks/{case}.png"):
        path = tmp_path / "overlays" / place
        path.parent.mkdir(parents=True)
        path.touch()
    structures = (Structure("<i>x</i>", 1, "red;background:url(http://x)"),)
    strange = replace(pack, structures=structures, method="<u>m", source="<s>p")
    strange = replace(strange, sections=pack.sections[:1])
    row = CaseRow(case, DONE, 1.0, {"<i>x</i>": 1.0}, warning="<em>\"'{{ 1 }}", slices=3)
    text, links = page(tmp_path, strange, row)
    place = "overlays/{}a%20%231%20%2520%20%22%3Cb%3E%26%27%C3%A9%3Cscript%3E.{}"
    assert links.addresses == [place.format("", "png")]
    assert links.loaded == [place.format("scans/", "jpg"), place.format("masks/", "png")]
    assert not re.search("<b>|<u>|<s>|<i>|<em>", text) and "background:#888888" in text
    assert text.count("<script>") == 1 and str(escape(case)) in text
