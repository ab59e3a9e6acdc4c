from __future__ import annotations

from fsmis_components.inferers.report.wording import counted, in_ml, listing


def test_numbers_and_names() -> None:
    assert [counted(number, "scan") for number in (0, 1, 2)] == ["0 scans", "1 scan", "2 scans"]
    assert [listing(list("abc")[:length]) for length in range(4)] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert [in_ml(volume) for volume in (0.0, 9.994, 10.04)] == ["0.00", "9.99", "10.0"]
