"""Files of rules: what they take to parse, and what becomes of names."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import ckptparse

needs_toml = pytest.mark.skipif(sys.version_info < (3, 11), reason="no tomllib")


def convert(directory: Path, rename: object) -> ckptparse.Conversion:
    prefix = ckptparse.write(directory / "m", {"dense/kernel": np.ones((2, 2), np.float32)})
    return ckptparse.convert(prefix, directory / "out.npz", rename=rename)  # type: ignore[arg-type]


@needs_toml
@pytest.mark.parametrize(
    ("limit", "text"),
    [
        ("state_bytes", "about = 1 #".ljust((1 << 19) + 1)),
        ("members", "drop = [" + "'x'," * 20_000 + "]"),
        ("nesting", f"about.{'a.' * 200}a = 1"),
        ("nesting", f"[about.{'a . ' * 200}a]"),
        ("nesting", "about." + '"a".' * 200 + "a = 1"),
        ("key_bytes", "[[rename]]\npattern = '.+'\nreplacement = '\\g<0>\\g<0>'\n" * 60),
    ],
)
def test_a_rule_file_that_would_cost_much_is_refused(limit: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(text)
    with pytest.raises(ckptparse.LimitError) as caught:
        convert(tmp_path, tmp_path / "rules.toml")
    assert caught.value.limit == limit
    assert not (tmp_path / "out.npz").exists()


@needs_toml
def test_dots_in_texts_and_comments_of_a_rule_file_are_no_keys(tmp_path: Path) -> None:
    dots = "." * 300
    text = f"drop = ['{dots}', \"{dots}\\\"{dots}\"]  # {dots}\nabout = 'it{dots}'\n"
    (tmp_path / "rules.toml").write_text(text)
    assert len(convert(tmp_path, tmp_path / "rules.toml").rows) == 1


@pytest.mark.parametrize(
    "rules",
    [
        [("$", "a" * ((1 << 25) + 1))],
        [("", "a" * (1 << 22))],
        [("(.)", "\\1" * (1 << 22))],
        [(".*", r"\g<0>\g<0>")] * 60,
    ],
    ids=["long", "everywhere", "groups", "again"],
)
def test_names_do_not_grow_without_end(rules: list[tuple[str, str]], tmp_path: Path) -> None:
    with pytest.raises(ckptparse.LimitError) as caught:
        convert(tmp_path, rules)
    assert caught.value.limit == "key_bytes"


def test_a_name_may_become_a_long_one(tmp_path: Path) -> None:
    done = convert(tmp_path, [("kernel", "k" * 5000), ("(.*)", r"\1/\1")])
    assert done.rows[0].new == "/".join(["dense/" + "k" * 5000] * 2) + "/"


def test_a_tensor_is_cut_into_no_more_parts_than_there_may_be(tmp_path: Path) -> None:
    prefix = ckptparse.write(tmp_path / "m", {"dense/kernel": np.ones((2, 2), np.float32)})
    for count in (20_001, 10**400):
        with pytest.raises(ckptparse.LimitError, match="parts of 'kernel'") as caught:
            ckptparse.convert(prefix, tmp_path / "out.npz", split={"kernel": count})
        assert caught.value.limit == "small_tensors"
    with pytest.raises(ckptparse.UnsupportedError, match="equal parts"):
        ckptparse.convert(prefix, tmp_path / "out.npz", split={"kernel": 20_000})
    ckptparse.convert(prefix, tmp_path / "out.npz", split={"kernel": 2})
