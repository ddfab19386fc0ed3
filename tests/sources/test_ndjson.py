"""The ndjson source: every line once, in order, and what is wrong with the others."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import PATIENCE
from workpool import WorkpoolError
from workpool.errors import SourceError
from workpool.sources.ndjson import BadLine, Line, NdjsonSource


def read(path: Path, content: bytes, **options: Any) -> list[Line | BadLine]:
    path.write_bytes(content)
    source = NdjsonSource(str(path), **options)
    lines = list(source)
    source.close()
    return lines


def only_bad(path: Path, content: bytes, **options: Any) -> BadLine:
    (line,) = read(path, content, **options)
    assert isinstance(line, BadLine)
    return line


def test_lines_have_their_numbers_their_bytes_and_their_events(tmp_path: Path) -> None:
    assert read(tmp_path / "a", b'{"a": 1}\n[2]\r\n"three"') == [
        Line(1, b'{"a": 1}\n', {"a": 1}),
        Line(2, b"[2]\r\n", [2]),
        Line(3, b'"three"', "three"),
    ]


def test_blank_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    assert [line.number for line in read(tmp_path / "a", b"\n1\n \t\r\n\n2\n\n")] == [2, 5]


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    assert read(tmp_path / "a", b"") == []
    assert read(tmp_path / "a.gz", gzip.compress(b"")) == []


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    assert read(tmp_path / "a", b"\xef\xbb\xbf1\n") == [Line(1, b"\xef\xbb\xbf1\n", 1)]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"nope\n", "not JSON: Expecting value at column 1"),
        (b'{"a": 1} x\n', "not JSON: Extra data at column 10"),
        (b'{"a": "\xff"}\n', "not UTF-8: invalid start byte at byte 8"),
        (b"\x00\x01\x02\n", "not JSON: Expecting value at column 1"),
        (b"NaN\n", "NaN is not JSON"),
        (b'{"a": -Infinity}\n', "-Infinity is not JSON"),
        (b"[" * 200_000 + b"\n", "nested too deeply"),
        (b"1" * 5000 + b"\n", "Exceeds the limit (4300 digits) for integer string conversion"),
    ],
)
def test_a_line_that_is_no_json_is_bad_and_the_next_is_read(tmp_path: Path, raw: bytes, reason: str) -> None:
    assert read(tmp_path / "a", raw + b"1\n") == [BadLine(1, raw, reason), Line(2, b"1\n", 1)]


def test_a_line_over_the_bound_is_bad_and_only_its_beginning_is_kept(tmp_path: Path) -> None:
    long = b'"' + b"x" * 100 + b'"\n'
    lines = read(tmp_path / "a", long + b"1\n" + long.rstrip(), max_line=16)
    assert lines == [
        BadLine(1, long[:16], "longer than 16 bytes"),
        Line(2, b"1\n", 1),
        BadLine(3, long[:16], "longer than 16 bytes"),
    ]


def test_a_line_of_just_the_bound_is_read(tmp_path: Path) -> None:
    assert read(tmp_path / "a", b'"' + b"x" * 13 + b'"\n', max_line=16) == [Line(1, b'"xxxxxxxxxxxxx"\n', "x" * 13)]


@given(st.lists(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)))
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, events: list[Any]) -> None:
    content = "".join(json.dumps(event) + "\n" for event in events).encode()
    folder = tmp_path_factory.mktemp("ndjson")
    for path, packed in ((folder / "a", content), (folder / "a.gz", gzip.compress(content))):
        lines = read(path, packed)
        assert [line.event for line in lines if isinstance(line, Line)] == events
        assert b"".join(line.raw for line in lines) == content


@pytest.mark.parametrize("cut", [0.2, 0.9])
def test_a_truncated_gz_breaks_and_names_file_and_line(tmp_path: Path, cut: float) -> None:
    path = tmp_path / "a.gz"
    content = gzip.compress(
        b"".join(b'{"n": %d, "x": "%s"}\n' % (n, os.urandom(99).hex().encode()) for n in range(2000))
    )
    path.write_bytes(content[: int(len(content) * cut)])
    source = NdjsonSource(str(path))
    with pytest.raises(SourceError, match="ended before the end-of-stream marker") as caught:
        list(source)
    assert isinstance(caught.value, WorkpoolError)
    assert caught.value.source == str(path)
    assert caught.value.line >= 1
    assert str(caught.value) == f"{path}:{caught.value.line}: cannot be read on: {caught.value.reason}"
    source.close()


def test_a_corrupt_gz_breaks_after_what_could_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    content = bytearray(gzip.compress(b"1\n" * 1000))
    content[-8:-4] = b"\0\0\0\0"  # The checksum.
    path.write_bytes(content)
    source = NdjsonSource(str(path))
    with pytest.raises(SourceError, match="CRC check failed") as caught:
        list(source)
    assert caught.value.line > 1
    source.close()


def test_a_gz_that_is_none_breaks_at_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(b'{"a": 1}\n')
    source = NdjsonSource(str(path))
    with pytest.raises(SourceError, match=r"a\.gz:1: .*[Nn]ot a gzipped file"):
        list(source)
    source.close()


def test_what_cannot_be_opened_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        NdjsonSource(str(tmp_path / "none"))
    with pytest.raises(IsADirectoryError):
        NdjsonSource(str(tmp_path))


@pytest.mark.parametrize("name", ["a", "a.gz"])
def test_how_much_was_read_is_told_for_a_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    content = b"".join(b'"%s"\n' % os.urandom(500).hex().encode() for _ in range(1000))
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    source = NdjsonSource(str(path))
    told = [source.fraction() for _ in source]
    assert None not in told
    assert told == sorted(told)  # type: ignore[type-var]
    assert 0 < told[0] < 0.5  # type: ignore[operator]
    assert told[-1] == 1
    source.close()
    assert source.fraction() is None


def test_standard_input_is_read_without_its_own_buffer() -> None:
    script = """
        import sys
        from workpool.sources.ndjson import NdjsonSource
        source = NdjsonSource("-")
        print(source.name, source.fraction(), [line.event for line in source])
        source.close()
        sys.stdin.buffer.read()
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script.replace("\n        ", "\n")],
        input="1\n2\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("<stdin> None [1, 2]\n", "")
