"""Lines of a child's stderr."""

import pytest

from pdcluster_operator.local.events import Failed, Loading, LogLine, Ready, read_line


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ('{"event": "loading", "fraction": 0.25}', Loading(0.25)),
        ('{"event": "loading", "fraction": 7}', Loading(1.0)),
        ('{"event": "loading", "fraction": "x"}', LogLine("loading fraction=x", False)),
        ('{"event": "ready", "instance_id": "i", "address": "127.0.0.1:1"}', Ready("127.0.0.1:1")),
        ('{"event": "failed", "reason": "tensor x is missing", "level": "error"}', Failed("tensor x is missing")),
        ('{"event": "late", "level": "warning", "peer": "p", "timestamp": "t"}', LogLine("late peer=p", True)),
        ('{"event": "request", "level": "info", "seconds": 1}', LogLine("request seconds=1", False)),
        ("W0101 a library says", LogLine("W0101 a library says", False)),
        ("[1, 2]", LogLine("[1, 2]", False)),
        ('{"event": 3}', LogLine("3", False)),
        ("{", LogLine("{", False)),
    ],
)
def test_lines(line, event):
    assert read_line(line) == event
