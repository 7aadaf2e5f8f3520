"""What benchmarks print is a contract: people read stderr, programs the last line of stdout."""

import json

import pytest
from report import at_least, at_most, finish, lookup, table

FIGURES = {"rate": 5000.0, "case": {"ratio": 0.9, "missing": None}}


def test_the_last_line_of_stdout_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    table(["name", "rate"], [["a", 1.5], ["b", 20000]])
    finish("example", FIGURES, [at_least("rate", 4500), at_most("case.ratio", 0.5)])
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    line = json.loads(out)
    assert list(line) == ["bench", "machine", "figures", "targets", "met"]
    assert line["bench"] == "example"
    assert line["figures"] == FIGURES
    assert line["met"] == {"rate": True, "case.ratio": False}
    assert line["targets"] == {"rate": {"at_least": 4500}, "case.ratio": {"at_most": 0.5}}
    assert "NOT MET" in err
    assert "20,000" in err


def test_a_figure_that_is_missing_meets_no_target() -> None:
    assert not at_most("case.missing", 1.0).is_met(FIGURES)
    assert not at_least("nowhere.at_all", 0.0).is_met(FIGURES)
    assert lookup(FIGURES, "case.ratio") == 0.9
