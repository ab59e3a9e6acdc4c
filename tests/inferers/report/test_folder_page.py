from __future__ import annotations

import re
from pathlib import Path

import matplotlib.image
import numpy as np
from html_pages import Page, checked_page

from fsmis_components.inferers.report.folder_page import render_folder_page
from fsmis_components.inferers.run_record import DONE, FAILED, CaseRow
from fsmis_components.support import Structure
from fsmis_components.support.calibration import Calibration, StructureTest

STRUCTURES = (Structure("liver", 1, "#ff0000"), Structure("Left kidney", 7, "#00ff00"))
FACTS = {"method": "ALPNet", "support": "labelled", "inference": {"amp": False}}


def done(case: str, liver: float = 100.0, kidney: float = 50.0) -> CaseRow:
    return CaseRow(case, DONE, 2.5, {"liver": liver, "left_kidney": kidney})


def page(folder: Path, *rows: CaseRow, structures=STRUCTURES, facts=FACTS) -> tuple[str, Page]:
    text = render_folder_page(rows, structures, facts, folder)
    return text, checked_page(text)


def draw(folder: Path, case: str) -> None:
    (folder / "overlays").mkdir(exist_ok=True)
    matplotlib.image.imsave(folder / "overlays" / f"{case}.png", np.zeros((20, 30, 3)))


def cells(text: str, first: str) -> list[str]:
    """The cells of the row that begins with a text, tags left out."""
    rows = re.findall(r"<tr.*?</tr>", text, flags=re.DOTALL)
    for row in rows:
        found = [re.sub("<.*?>", "", cell) for cell in re.findall(r"<td.*?</td>", row)]
        if found and found[0] == first:
            return found
    raise AssertionError(f"no row {first}")


def test_what_was_segmented_by_what(tmp_path: Path) -> None:
    text, _ = page(tmp_path, done("image_2", 120.0), done("image_3", 80.0, 0.0))
    assert "ALPNet looked for liver and Left kidney in 2 scans, by the example of labelled." in text
    assert cells(text, "liver") == ["liver", "1", "100.0", "80.0 to 120.0", "2 of 2", "-"]
    assert cells(text, "Left kidney") == ["Left kidney", "7", "50.0", "50.0 to 50.0", "1 of 2", "-"]
    assert "background:#ff0000" in text and "<th>inference</th>" in text
    assert cells(text, "image_2") == ["image_2", "done", "2.5", "120.0", "50.0", ""]
    assert "failed" not in re.sub("<style>.*?</style>", "", text, flags=re.DOTALL)


def test_expected_dice_and_warnings(tmp_path: Path) -> None:
    row = done("image_2")
    row.expected_dice = {"liver": 0.876, "left_kidney": 0.41}
    row.warning = "The scan does not look like the support."
    text, _ = page(tmp_path, row)
    found = cells(text, "image_2")
    assert found[3:5] == ["100.088 %", "50.041 %"]  # volume, and below it the Dice
    assert found[5] == "Left kidney: expected Dice 41 % The scan does not look like the support."
    assert "Left kidney 50.0 ml, expected Dice 41 %" in re.sub("<.*?>", "", text)


def test_the_support_tested_itself(tmp_path: Path) -> None:
    tests = (StructureTest(0.88, 0.04, 3, "scans"), StructureTest(0.5, 0.2, 4, "slices"))
    text = render_folder_page([done("image_2")], STRUCTURES, FACTS, tmp_path, Calibration(tests))
    assert cells(text, "liver")[-1] == "88 ± 4 (3 scans held out)"
    assert cells(text, "Left kidney")[-1] == "uncertain, 50 ± 20 (4 blocks of slices held out)"


def test_failures_come_first_with_their_message(tmp_path: Path) -> None:
    failed = CaseRow("image_9", FAILED, 0.1, {}, "image_9: not a NIfTI <file>.")
    text, links = page(tmp_path, done("image_2"), failed)
    assert "1 scan failed and was not segmented" in text
    assert text.index(">image_9<") < text.index(">image_2<")
    assert cells(text, "image_9")[-1] == "image_9: not a NIfTI &lt;file&gt;."
    assert "scan-image_9" not in links.ids and "scan-image_2" in links.ids
    text, _ = page(tmp_path, failed)
    assert "in 0 scans" in text and "Pictures" not in text and "0 of 0" in text


def test_pictures_are_linked_and_wait_to_be_seen(tmp_path: Path) -> None:
    draw(tmp_path, "image_2")
    text, links = page(tmp_path, done("image_2"), done("image_3"))
    assert links.addresses == ["overlays/image_2.png"]
    assert 'loading="lazy"' in text and 'width="30" height="20"' in text
    assert "There is no picture overlays/image_3.png." in text
    assert len(text) < 20_000
    (tmp_path / "overlays" / "image_3.png").write_bytes(b"short")
    assert page(tmp_path, done("image_3"))[1].addresses == []


def test_hints_stand_in_the_table_and_above_the_picture(tmp_path: Path) -> None:
    usual = [done(f"image_{number}") for number in range(5)]
    text, _ = page(tmp_path, *usual, done("image_8", 10.0, 0.0))
    hint = "liver: 0.1 times the median of 100.0 ml; Left kidney: not found"
    assert cells(text, "image_8")[-1] == hint and text.count(hint) == 2
    assert text.count('class="right hint"') == 2


def test_names_are_text(tmp_path: Path) -> None:
    case = "a #1 %20 \"<b>&'"
    draw(tmp_path, case)
    structures = (Structure("<i>x</i>", 1, "red;background:url(http://x)"),)
    row = CaseRow(case, DONE, 1.0, {"<i>x</i>": 1.0})
    facts = {"method": "<u>m", "support": "<s>p"}
    text, links = page(tmp_path, row, structures=structures, facts=facts)
    assert links.addresses == ["overlays/a%20%231%20%2520%20%22%3Cb%3E%26%27.png"]
    assert not re.search("<b>|<u>|<s>|<i>", text) and "background:#888888" in text


def test_light_and_dark(tmp_path: Path) -> None:
    text, _ = page(tmp_path, done("image_2"))
    assert "color-scheme: light;" in text and "prefers-color-scheme: dark" in text
