from __future__ import annotations

from fsmis_components.evaluation.inference_benchmark import (
    BundleCost,
    StageCost,
    csv_text,
    markdown_table,
)


def cost(gpu: float = 0.0) -> BundleCost:
    return BundleCost(
        "cow",
        {"encode support": StageCost(3.0, 5.5, 400.0, gpu), "rest": StageCost(1.0, 1.0, 300.0)},
        [
            (
                "a 2 x 3 x 4",
                {"read": StageCost(0.5, 0.5, 410.0), "rest": StageCost(0.25, 0.25, 405.0)},
            ),
            (
                "b 2 x 3 x 4",
                {"read": StageCost(0.25, 0.25, 420.0), "rest": StageCost(0.25, 0.25, 405.0)},
            ),
            (
                "c 2 x 3 x 4",
                {"read": StageCost(0.1, 0.1, 400.0), "rest": StageCost(0.0, 0.0, 405.0)},
            ),
            (
                "d 2 x 3 x 4",
                {"read": StageCost(0.3, 0.3, 400.0), "rest": StageCost(0.0, 0.0, 405.0)},
            ),
        ],
        {"machine": "a processor", "threads": 2},
    )


def test_first_second_and_later_scans() -> None:
    text = markdown_table([cost()])
    head = next(line for line in text.splitlines() if line.startswith("| stage"))
    assert head == (
        "| stage | before the first scan | first: a 2 x 3 x 4 | second: b 2 x 3 x 4 "
        "| mean of 2 later | resident MiB |"
    )
    assert "| read | - | 0.50 | 0.25 | 0.20 | 420 |" in text
    assert "| encode support | 3.00 | - | - | - | 400 |" in text
    assert "| write | - | - | - | - | - |" in text
    assert "| **sum** | **4.00** | **0.75** | **0.50** | **0.20** | **420** |" in text
    assert "| processor time | 6.50 | 0.75 | 0.50 | 0.20 |  |" in text
    assert text.startswith("## cow\n") and "machine: a processor; threads: 2" in text


def test_memory_of_a_gpu_has_a_column() -> None:
    text = markdown_table([cost(gpu=12.0)])
    assert "| resident MiB | GPU MiB |" in text
    assert "| encode support | 3.00 | - | - | - | 400 | 12 |" in text


def test_a_single_scan() -> None:
    own = cost()
    text = markdown_table([BundleCost("x", own.before, own.scans[:1], {})])
    assert (
        "second" not in text.partition("\n\n|")[2].partition("Seconds")[0] and "later" not in text
    )


def test_csv_has_a_line_per_scan_and_stage() -> None:
    lines = csv_text([cost()]).splitlines()
    assert lines[0] == "bundle,scan,stage,seconds,processor_seconds,resident_mib,gpu_mib"
    assert lines[1] == "cow,before the first scan,encode support,3.0000,5.5000,400.0,0.0"
    assert lines[3] == "cow,a 2 x 3 x 4,read,0.5000,0.5000,410.0,0.0" and len(lines) == 1 + 2 + 8
