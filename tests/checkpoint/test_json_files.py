from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sparse_encoder.checkpoint.errors import CheckpointError, ConfigError
from sparse_encoder.checkpoint.json_files import MAX_JSON_BYTES, parse_json, read_json, read_json_object


def test_reads_what_json_says(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        '{"a": [1, -2.5, true, null, "é\\u00e9"], "limit": 1000000000000000019884624838656}'
    )
    value = read_json(tmp_path / "a.json")
    assert value == {"a": [1, -2.5, True, None, "éé"], "limit": int(1e30)}
    assert isinstance(value["limit"], int)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"eps": NaN}', "NaN is no JSON number"),
        (b'{"eps": Infinity}', "Infinity is no JSON number"),
        (b'{"eps": -Infinity}', "-Infinity is no JSON number"),
        (b'{"eps": 1e999}', "1e999 is too large"),
        (b'{"eps": ' + b"9" * 400 + b".0}", "is too large"),
        (b'{"n": ' + b"9" * 41 + b"}", "a number of 41 digits"),
        (b'{"n": ' + b"9" * 5000 + b"}", "a number of 5000 digits"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' is there twice"),
        (b"[" * 200_000, "nested deeper than 64 levels"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "nested deeper than 64 levels"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ("{}".encode("utf-16"), "must be UTF-8"),
        (b'{"a": "\xff"}', "must be UTF-8: invalid start byte at byte 7"),
        (b"", "is not valid JSON"),
        (b"{} {}", "is not valid JSON"),
        (b"{'a': 1}", "is not valid JSON"),
        (b'{"a": 1,}', "is not valid JSON"),
        (b'{"a": "\n"}', "is not valid JSON"),
        (b'"' + b" " * MAX_JSON_BYTES + b'"', "must not be larger than 1000000 bytes"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_json(path)
    assert caught.value.path == str(path)


def test_brackets_in_strings_are_no_levels(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('["' + "[" * 100 + '", "\\"[[[["]')
    assert read_json(tmp_path / "a.json") == ["[" * 100, '"[[[[']


def test_sixty_four_levels_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 64 + "]" * 64)
    depth, value = 0, read_json(tmp_path / "a.json")
    while value:
        depth, value = depth + 1, value[0]
    assert depth == 63


@pytest.mark.parametrize("content", [b'["' + b'\\"' * 400_000, b"[" + b'"",' * 200_000, b'["' + b"\\" * 900_000])
def test_hostile_strings_take_no_time(content: bytes) -> None:
    start = time.process_time()
    with pytest.raises(ConfigError):
        parse_json(content, path=Path("config.json"))
    assert time.process_time() - start < 3.0


def test_a_gigabyte_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.touch()
    os.truncate(path, 1_000_000_000)
    start = time.process_time()
    with pytest.raises(ConfigError, match="larger"):
        read_json(path)
    assert time.process_time() - start < 3.0


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ConfigError, match="regular file"):
        read_json(tmp_path / "config.json")


def test_an_object_is_an_object(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[1]")
    with pytest.raises(CheckpointError, match="must hold a JSON object, got list"):
        read_json_object(path, error=CheckpointError)
    path.write_text('{"a": 1}')
    assert read_json_object(path) == {"a": 1}


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")
