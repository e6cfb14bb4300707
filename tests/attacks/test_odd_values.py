"""Values that parse, and that no writer writes: numbers of 5,000 digits, infinities, half letters.

Python raises errors of its own when these are taken for sizes, numbers or names.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptparse
from ckptparse.cli.app import PROGRAM
from ckptparse.json_text import parse_json
from ckptparse.limits import DEFAULT_LIMITS

DIGITS = "9" * 5000
"""More than Python takes for a number at once."""
VALUES = np.arange(1000.0)
HALF = "x\ud800"
"""A name, or a text, that is no text."""
FORMATS: dict[str, Any] = {
    "m.npz": "npz",
    "m/": "npy",
    "m.safetensors": "safetensors",
    "m.h5": "hdf5",
    "m.ckpt": "v2",
}


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    return ckptparse.write(tmp_path / "in" / "m", {"w": VALUES})


# Numbers of very many digits.


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("annex-pointer", "/annex/objects/SHA256E-s{}--1f2e"),
        ("dvc-pointer", "outs:\n- md5: 1f2e\n  size: {}\n  path: w\n"),
        ("xet-pointer", "# xet version 0\nfilesize = {}\n"),
    ],
)
def test_a_pointer_to_more_bytes_than_there_can_be_has_no_size(
    kind: str, text: str, tmp_path: Path
) -> None:
    path = tmp_path / "w"
    for number, size in ((DIGITS, None), ("4928", 4928)):
        path.write_text(text.format(number))
        found = ckptparse.identify(path)
        assert (found.kind, found.detail.get("size")) == (kind, size)


@pytest.mark.parametrize(
    "name",
    [
        f"m-{DIGITS}",
        f"m.data-{DIGITS}-of-{DIGITS}",
        f"m-{DIGITS}-of-{DIGITS}",
        f"m_temp/part-{DIGITS}-of-{DIGITS}.index",
    ],
    ids=["step", "data file", "V1", "part"],
)
def test_a_state_file_may_name_a_path_with_numbers_of_any_length(name: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{name}"\n')
    for call in (ckptparse.list_variables, ckptparse.read, ckptparse.verify, ckptparse.recover):
        with pytest.raises(ckptparse.CheckpointNotFoundError):
            call(tmp_path)
    assert ckptparse.latest_checkpoint(tmp_path) is None


def test_tensors_with_numbers_of_any_length_are_sorted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["w_10", f"w_{DIGITS}", "w_9", f"{'٣' * 5000}"]
    prefix = ckptparse.write(tmp_path / "m", dict.fromkeys(names, VALUES[:1]))
    for order in ("name", "size", "shape"):
        command = ["ls", "--json", "--sort", order, prefix]
        PROGRAM.main(command, prog_name="ckptparse", standalone_mode=False)
        listed = [one["name"] for one in json.loads(capsys.readouterr().out)["result"]["tensors"]]
        assert sorted(listed) == sorted(names)
        assert listed.index("w_9") < listed.index("w_10") < listed.index(f"w_{DIGITS}")


# Headers of arrays.


@pytest.mark.parametrize("shape", ["(1 2)", "(1,,2)", "( ,)", "(1 ,2)"])
def test_a_header_of_numpy_with_no_shape_in_it_is_one_all_the_same(
    shape: str, tmp_path: Path
) -> None:
    told = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    path = tmp_path / "w.npy"
    path.write_bytes(b"\x93NUMPY\2\0" + struct.pack("<I", len(told)) + told + bytes(8))
    assert ckptparse.identify(path).kind == "npy"
    with pytest.raises(ckptparse.NotACheckpointError):
        ckptparse.read(path)


def safetensors(path: Path, offsets: str) -> Path:
    told = f'{{"w": {{"dtype": "F64", "shape": [1000], "data_offsets": {offsets}}}}}'.encode()
    path.write_bytes(struct.pack("<Q", len(told)) + told + VALUES.tobytes())
    return path


@pytest.mark.parametrize("offsets", ["[0.0, 8000.0]", "[0, 1e999]", "[-Infinity, 8000]", "[0, {}]"])
def test_a_place_that_is_no_whole_number_is_no_evidence(
    offsets: str, prefix: str, tmp_path: Path
) -> None:
    with open(f"{prefix}.data-00000-of-00001", "r+b") as data:
        data.write(b"damaged" * 100)
    other = tmp_path / "other"
    other.mkdir()
    path = safetensors(other / "m.safetensors", offsets)
    # What lies there is told all the same, and its bytes are found by looking for them.
    assert ckptparse.identify(path).kind in ("safetensors", "unknown")
    found = ckptparse.recover(prefix, evidence=[path])
    assert found["w"].status not in ("verified", "corrupt")
    with pytest.raises(ckptparse.DataLossError):
        ckptparse.convert(path, tmp_path / "out.npz")


# JSON.


@pytest.mark.parametrize("text", ['"\\ud800"', '["\\uDFFFa"]', '{"\\udbff": 1}', b'"\xed\xa0\x80"'])
def test_half_a_character_is_no_json(text: str | bytes) -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        parse_json(text, DEFAULT_LIMITS)


def test_names_that_are_no_utf_8_and_characters_in_two_halves_are_json() -> None:
    value = {"\udc80": ["\udcff", "😀", "é"]}
    for text in (json.dumps(value), json.dumps(value).encode("utf-16")):
        assert parse_json(text, DEFAULT_LIMITS) == value


def test_a_shape_under_a_name_with_half_a_character_is_malformed(
    prefix: str, tmp_path: Path
) -> None:
    Path(f"{prefix}.index").unlink()
    shapes = tmp_path / "shapes.json"
    shapes.write_text('{"\\ud800": [1000]}')
    with pytest.raises(ckptparse.MalformedError, match="surrogates"):
        ckptparse.recover(prefix, shapes=shapes)


@pytest.mark.parametrize("number", ["1e999", "-Infinity", "NaN"])
def test_a_state_of_a_scan_with_an_infinite_number_is_malformed(
    number: str, tmp_path: Path
) -> None:
    image, state = tmp_path / "disk.img", tmp_path / "state.json"
    image.write_bytes(bytes(1 << 16))
    ckptparse.scan(image, state=state)
    told = json.loads(state.read_text())
    state.write_text(json.dumps({**told, "searched": "here"}).replace('"here"', number))
    with pytest.raises(ckptparse.MalformedError, match="state file of a scan"):
        ckptparse.scan(image, state=state)


def report_of(prefix: str, out: Path) -> tuple[Path, dict[str, Any]]:
    ckptparse.recover(prefix, hashes=True).write(out)
    path = out.with_name(f"{out.name}.report.json")
    return path, json.loads(path.read_text())


def test_a_report_with_an_infinite_size_is_malformed(prefix: str, tmp_path: Path) -> None:
    path, told = report_of(prefix, tmp_path / "out" / "m.npz")
    told["report"]["inputs"][0]["size"] = float("inf")
    path.write_text(json.dumps(told))
    with pytest.raises(ckptparse.MalformedError, match="report of a recovery"):
        ckptparse.replay(path)


@pytest.mark.parametrize("key", ["format", "offer", "files"])
def test_an_output_of_no_kind_that_there_is_is_malformed(
    key: str, prefix: str, tmp_path: Path
) -> None:
    path, told = report_of(prefix, tmp_path / "out" / "m.npz")
    for value in ("", "x", 1, True):
        told["output"][key] = value
        path.write_text(json.dumps(told))
        with pytest.raises(ckptparse.MalformedError, match="what was written"):
            ckptparse.replay(path, tmp_path / "out" / "again.npz")


@pytest.mark.parametrize("number", [0xD800, 0xDFFF, 0x110000, 0xFFFFFFFF], ids=hex)
@pytest.mark.parametrize("order", ["<", ">"])
def test_texts_of_numpy_that_hold_no_characters_are_malformed(
    number: int, order: str, tmp_path: Path
) -> None:
    texts = np.array([[65, number, 66], [67, 0, 0]], f"{order}u4").view(f"{order}U3")
    np.savez(tmp_path / "m.npz", words=texts)
    jobs = (
        lambda path: ckptparse.convert(path, tmp_path / "out" / "m", format="v2"),
        lambda path: ckptparse.convert(path, tmp_path / "out.npz"),
        lambda path: ckptparse.diff(path, path),
        ckptparse.stats,
    )
    (tmp_path / "out").mkdir()
    for job in jobs:
        with pytest.raises(ckptparse.MalformedError, match="Expected characters"):
            job(tmp_path / "m.npz")


def test_texts_of_numpy_that_hold_characters_are_bytes(tmp_path: Path) -> None:
    # Turned in memory, of no elements, of no characters; a byte that is no UTF-8 stands as half.
    wanted = {
        "columns": np.asfortranarray(np.array([["ä", "bb"], ["", "\U0010ffff"]])),
        "none": np.zeros((0, 2), "U4"),
        "empty": np.zeros(2, "U0"),
        "byte": np.array(["\udc80a"], ">U2"),
    }
    np.savez(tmp_path / "m.npz", **wanted)
    ckptparse.convert(tmp_path / "m.npz", tmp_path / "out.ckpt", format="v2")
    found = ckptparse.read(tmp_path / "out.ckpt")
    for name, texts in wanted.items():
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts.reshape(-1)]
        assert found[name].reshape(-1).tolist() == encoded
        assert found[name].shape == texts.shape


@pytest.mark.parametrize("target", ["m.npz", "m/", "m.safetensors", "m.h5", "m.ckpt"])
def test_a_half_character_of_the_caller_is_not_written(
    target: str, prefix: str, tmp_path: Path
) -> None:
    out = tmp_path / "out" / target
    with pytest.raises(ckptparse.UnsupportedError, match=r"UTF-8|encoded"):
        ckptparse.convert(prefix, out, format=FORMATS[target], rename={"w": HALF})
    if target != "m.safetensors":
        with pytest.raises(ckptparse.UnsupportedError, match="encoded"):
            ckptparse.convert({"w": np.array([HALF], object)}, out, format=FORMATS[target])
    assert not list((tmp_path / "out").rglob("*.*"))
