"""Messages that TensorFlow printed, explained."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import cast

import pytest

import ckptparse
from ckptparse import explanation
from ckptparse.explanation import MESSAGE_CODES, explain
from ckptparse.explanation.value import Row
from ckptparse.problems import PROBLEM_CODES

TABLE = Path(__file__).parent / "messages.json"
MESSAGES = json.loads(TABLE.read_text(encoding="utf-8"))
"""Messages that people pasted into public issue threads, where, and the right answer's code."""

CHECKSUM = (
    "DataLossError (see above for traceback): Checksum does not match: stored {} vs. calculated "
    "on the restored bytes {}\n\t [[node save/RestoreV2 (defined at train.py:12) ]]"
)


@pytest.mark.parametrize(
    ("computed", "zeros"), [(4004437628, "1,024"), (1925235876, "65,536"), (517592881, "2,359,296")]
)
def test_a_calculated_checksum_of_zeros_is_recognised(computed: int, zeros: str) -> None:
    answer = explain(CHECKSUM.format(1214729159, computed))
    assert answer.code == "tensor.zeros"
    assert f"{zeros} zero bytes" in answer.meaning
    assert "download" in answer.advice.lower()


def test_checksums_that_differ_like_one_bit_name_the_bit() -> None:
    from crc32c import crc32c

    data = bytearray(range(200))
    stored = crc32c(bytes(data))
    data[150] ^= 1 << 5
    answer = explain(CHECKSUM.format(stored, crc32c(bytes(data))))
    assert (
        answer.code == "tensor.checksum" and "bit 5 of the byte 49 bytes before" in answer.meaning
    )


def test_other_checksums_mean_damage_or_a_mixed_save() -> None:
    answer = explain(CHECKSUM.format(1214729159, 987654321))
    assert answer.code == "tensor.checksum" and "different saves" in answer.cause


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Unable to open table file ./m.ckpt: Data loss: not an sstable: perhaps", "index.footer"),
        ("DataLoss: file is too short to be an sstable", "index.footer"),
        (
            "Unsuccessful TensorSliceReader constructor: Failed to find any matching files for x/y",
            "path.wrong",
        ),
        ("Failed to get matching files on /a/b: Not found: /a; No such file", "path.wrong"),
        ("OutOfRangeError: Read less bytes than requested", "shard.truncated"),
        ("Read fewer bytes than requested", "shard.truncated"),
        (
            "NotFoundError: m/ckpt.data-00001-of-00040; No such file or directory",
            "shard.missing",
        ),
        ("DataLossError: block checksum mismatch", "index.block"),
        ("Key conv/kernel not found in checkpoint", "name.missing"),
        ('Tensor name "a/b" not found in checkpoint files model.ckpt', "name.missing"),
        ("Assign requires shapes of both tensors to match. lhs shape= [3]", "shape.mismatch"),
        ("OSError: SavedModel file does not exist at: m/{saved_model.pb}", "path.wrong"),
        ("ValueError: Can't load save_path when it is None.", "path.wrong"),
        ("ValueError: The passed save_path is not a valid checkpoint: m/ckpt", "path.wrong"),
        ("FAILED_PRECONDITION: ./model; Is a directory", "path.wrong"),
        ("OSError: Unable to open file (file signature not found)", "format.other"),
    ],
)
def test_a_message_gets_its_code(text: str, code: str) -> None:
    answer = explain(text)
    assert answer.code == code
    assert answer.code in PROBLEM_CODES or answer.code in MESSAGE_CODES
    assert answer.meaning.endswith(".") and answer.cause.endswith(".") and answer.advice


def test_the_missing_shard_is_counted_as_people_count() -> None:
    answer = explain("m/ckpt.data-00001-of-00040; No such file or directory")
    assert "number 2 of 40" in answer.meaning


def test_what_is_not_known_has_no_code() -> None:
    answer = explain("Segmentation fault (core dumped)")
    assert answer.code is None and "verify" in answer.advice


def test_a_whole_traceback_may_be_given() -> None:
    text = "Traceback (most recent call last):\n  File 'a.py'\n" + CHECKSUM.format(1, 4004437628)
    assert explain(text * 3).code == "tensor.zeros"


def test_an_explanation_prints_its_parts() -> None:
    printed = str(explain("block checksum mismatch"))
    assert printed.startswith("[index.block] ") and "\nAdvice: " in printed


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Value in checkpoint could not be found in the restored object: (root).a", "name.unused"),
        ("AssertionError: Unresolved object in checkpoint (root).head: ...", "name.unused"),
        ("Some Python objects were not bound to checkpointed values, likely", "name.missing"),
        (
            "File format not supported: filepath=m. Keras 3 only supports V3 `.keras`",
            "format.other",
        ),
        ("m.data-00000-of-00001.tempstate12; No space left on device", "set.unfinished"),
    ],
)
def test_what_the_program_lacks_is_not_what_the_checkpoint_lacks(text: str, code: str) -> None:
    assert explain(text).code == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("PermissionDeniedError: /data/ckpt-1.index; Permission denied", "file.unreadable"),
        (
            "Unsuccessful TensorSliceReader constructor: /a: PERMISSION_DENIED: Permission denied",
            "file.unreadable",
        ),
        ("W tensorflow: Unable to open table file ./m.ckpt", "index.footer"),
        ("Unable to open table file m: DATA_LOSS: not an sstable (bad magic", "index.footer"),
        ("DataLossError: corrupted record at 0 [Op:IteratorGetNext]", "format.other"),
        ("DecodeError: Error parsing message with type 'tensorflow.GraphDef'", "format.other"),
        ("Error parsing message with type 'tensorflow.BundleEntryProto'", "index.entry"),
        ("google.protobuf.message.DecodeError: Error parsing message", "format.other"),
    ],
)
def test_a_message_is_explained_by_what_it_is_about(text: str, code: str) -> None:
    assert explain(text).code == code


@pytest.mark.parametrize("row", MESSAGES, ids=lambda row: row["source"])
def test_a_message_that_somebody_pasted_gets_the_right_answer(row: dict[str, str | None]) -> None:
    message = row["message"]
    assert message is not None
    assert explain(message).code == row["code"]
    traceback = f'Traceback (most recent call last):\n  File "a.py", line 1\n{message}\n'
    assert explain(traceback).code == row["code"]


def test_the_table_of_messages_is_long_and_names_its_sources() -> None:
    assert len({row["message"] for row in MESSAGES}) == len(MESSAGES) >= 120
    assert sum("#" in row["source"] for row in MESSAGES) >= 80
    assert sum(row["code"] is None for row in MESSAGES) >= 20


def test_every_code_has_a_message_and_every_answer_a_code_that_is_documented() -> None:
    codes = {row["code"] for row in MESSAGES}
    assert codes - {None} <= PROBLEM_CODES.keys() | MESSAGE_CODES.keys()
    assert codes >= MESSAGE_CODES.keys()
    assert ckptparse.MESSAGE_CODES is MESSAGE_CODES


@pytest.mark.parametrize("row", [row for row in MESSAGES if row["code"]], ids=lambda r: r["source"])
def test_an_answer_is_in_whole_sentences_and_says_what_to_do(row: dict[str, str]) -> None:
    answer = explain(row["message"])
    for part in (answer.meaning, answer.cause, answer.advice):
        assert part[0] == "`" or part[0].isupper() or part.startswith("ckptparse"), part
        assert part.endswith("."), part
        assert "  " not in part


def test_the_sizes_in_a_message_tell_how_much_wider_the_stored_type_is() -> None:
    text = "Invalid size in bundle entry: key w; stored size 4096; expected size 2048"
    assert "2 times wider" in explain(text).meaning
    text = "Invalid size in bundle entry: key w; stored size 1000; expected size 8000"
    assert "8 times narrower" in explain(text).meaning


def test_of_a_long_text_its_ends_are_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    message = "Data loss: Checksum does not match: stored 1 vs. calculated on the restored bytes 2"
    noise = "step 1: loss 0.5\n" * 100_000
    expected = explanation.explain(message)
    assert expected.code is not None
    assert explanation.explain(message + noise) == expected
    assert explanation.explain(noise + message) == expected
    looked: list[int] = []

    class Watched:
        def explain(self, text: str) -> None:
            looked.append(len(text))
            looked.append(max(map(len, text.split("\n"))))

    monkeypatch.setattr(explanation, "_ROWS", [Watched()])
    assert explanation.explain(noise + "unable to open file " * 100_000).code is None
    assert max(looked) <= 131_073 + 64
    assert looked[1] <= 4096


def test_a_line_with_many_matches_is_looked_through_once() -> None:
    answer = explanation.Explanation("path.wrong", "", "", "")
    seen: list[str] = []

    class Needs:
        def search(self, line: str) -> None:
            seen.append(line)

    made = Row(re.compile("b"), answer, cast("re.Pattern[str]", Needs()))
    assert made.explain("a b b b\nb b\n") is None
    assert seen == ["a b b b", "b b"]
