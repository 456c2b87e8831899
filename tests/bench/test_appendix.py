"""The appendix of results: sections by machine, written only by commands that succeed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import appendix


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    page = tmp_path / "APPENDIX.md"
    old = appendix.section("sums", "another machine", "python old.py", "2026-01-01", "kept")
    page.write_text(f"# Appendix\n\n{old}")
    monkeypatch.setattr(appendix, "PAGE", page)
    monkeypatch.setattr(appendix, "machine", lambda: "this machine")
    sections = {"sums": "python -c 'print(2 + 2)'", "wrong": "python -c 'exit(3)'"}
    monkeypatch.setattr(appendix, "SECTIONS", sections)
    return page


def test_a_section_takes_the_place_of_its_own_only(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert appendix.main(["sums"]) == 0
    text = page.read_text()
    assert "kept" in text
    assert "### sums: this machine\n\n`python -c 'print(2 + 2)'`" in text
    assert "```text\n4\n```" in text
    monkeypatch.setitem(appendix.SECTIONS, "sums", "python -c 'print(2 * 3)'")
    assert appendix.main(["sums"]) == 0
    assert page.read_text().count("### sums") == 2
    assert "```text\n6\n```" in page.read_text()


def test_a_command_that_fails_leaves_the_page_alone(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = page.read_bytes()
    assert appendix.main(["wrong"]) == 1
    assert "failed with exit status 3" in capsys.readouterr().err
    assert page.read_bytes() == before


@pytest.mark.usefixtures("page")
def test_names_are_checked_and_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        appendix.main(["products"])
    assert "there is no section 'products'; there are sums, wrong" in capsys.readouterr().err
    assert appendix.main([]) == 0
    assert "sums      python -c" in capsys.readouterr().out
