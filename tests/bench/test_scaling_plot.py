"""The scaling plot: what it reads, and that it draws it."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import scaling_plot

REPORT = {
    "benchmarks": [
        {"name": "test_share_of_peak[tiny-bf16]", "extra_info": {"of 2 spheres": 9.0}},
        {"name": "test_scaling[small-63]", "extra_info": {"of 2 spheres": 0.97, "cores": 2}},
        {"name": "test_scaling[small-2]", "extra_info": {"of 2 spheres": 1.0}},
        {"name": "test_scaling[tiny-8]", "extra_info": {"of 2 spheres": 1.1}},
    ]
}


def test_curves_are_of_scaling_alone_and_ascend() -> None:
    assert scaling_plot.curves(REPORT) == {"small": [(2, 1.0), (63, 0.97)], "tiny": [(8, 1.1)]}


def test_report_without_scaling_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"benchmarks": REPORT["benchmarks"][:1]}))
    with pytest.raises(SystemExit) as caught:
        scaling_plot.main([str(path)])
    assert caught.value.code == 2
    assert str(path) in capsys.readouterr().err


def test_plot_names_workloads_and_counts_and_repeats_its_bytes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report, plot = tmp_path / "report.json", tmp_path / "plot.svg"
    report.write_text(json.dumps(REPORT))
    assert scaling_plot.main([str(report), str(plot)]) == 0
    texts = {element.text for element in ElementTree.parse(plot).iter() if element.text}
    assert {"small", "tiny", "2", "8", "63", "spheres"} <= texts
    before = plot.read_bytes()
    scaling_plot.main([str(report), str(plot)])
    assert plot.read_bytes() == before
