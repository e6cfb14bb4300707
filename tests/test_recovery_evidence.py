"""What `recover` says of its reasons: each claim has its evidence, each patched byte is listed."""

from __future__ import annotations

import gzip
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builder
import numpy as np
import pytest
import v1_builder

import ckptparse
from ckptparse import EvidenceRule, PatchedRange
from ckptparse.recovery.rebuild import view
from ckptparse.recovery.rebuild.layout import Rule

WEIGHTS = np.random.default_rng(1).normal(size=5000).astype(np.float32)
BIAS = np.random.default_rng(2).normal(size=100).astype(np.float32)


def save(prefix: Path, **arrays: Any) -> Path:
    made = builder.Bundle()
    for name, array in (arrays or {"b": BIAS, "w": WEIGHTS}).items():
        made.add(name, array)
    prefix.parent.mkdir(exist_ok=True)
    made.write(prefix)
    return prefix


def data_of(prefix: Path) -> Path:
    return Path(f"{prefix}.data-00000-of-00001")


def index_of(prefix: Path) -> Path:
    return Path(f"{prefix}.index")


def change(path: Path, offset: int, new: bytes) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(new)] = new
    path.write_bytes(raw)


def rules(tensor: ckptparse.TensorReport | ckptparse.RecoveredTensor) -> list[str]:
    return [str(record.rule) for record in tensor.evidence]


# Damage of each kind that is mended by changing bytes


def one_bit(prefix: Path) -> list[str]:
    raw = data_of(prefix).read_bytes()
    change(data_of(prefix), 1000, bytes([raw[1000] ^ 4]))
    return []


def one_byte(prefix: Path) -> list[str]:
    raw = data_of(prefix).read_bytes()
    change(data_of(prefix), 100, bytes([raw[100] ^ 0x5B]))
    return []


def last_bytes(prefix: Path) -> list[str]:
    data_of(prefix).write_bytes(data_of(prefix).read_bytes()[:-2])
    return []


def index_bit(prefix: Path) -> list[str]:
    raw = index_of(prefix).read_bytes()
    change(index_of(prefix), 20, bytes([raw[20] ^ 1]))
    return []


def index_checksum(prefix: Path) -> list[str]:
    raw = index_of(prefix).read_bytes()
    at = raw.index(b"\0\0\0\0\1\0\0\0") + 9
    change(index_of(prefix), at, bytes([raw[at] ^ 0x40]))
    return []


def sectors_of_a_copy(prefix: Path) -> list[str]:
    copy = save(prefix.parent.parent / "copy" / "m")
    change(data_of(copy), 4096, bytes(512))
    change(data_of(prefix), 8192, bytes(512))
    return [str(copy.parent)]


def a_page_that_a_sibling_has(prefix: Path) -> list[str]:
    other = WEIGHTS.copy()
    other[0] += 1
    save(prefix.parent / "n", b=BIAS, w=other)
    change(data_of(prefix), 8192, bytes(4096))
    return []


MENDED: dict[str, tuple[Callable[[Path], list[str]], EvidenceRule]] = {
    "one bit": (one_bit, EvidenceRule.BIT),
    "one byte": (one_byte, EvidenceRule.BYTES),
    "the last bytes": (last_bytes, EvidenceRule.TAIL),
    "one bit of the index": (index_bit, EvidenceRule.CORRECTED_ENTRY),
    "one bit of a checksum in the index": (index_checksum, EvidenceRule.CORRECTED_ENTRY),
    "sectors of two copies": (sectors_of_a_copy, EvidenceRule.MERGED),
    "a page that a sibling has": (a_page_that_a_sibling_has, EvidenceRule.FILLED),
}


def patches_of(report: ckptparse.Report) -> list[PatchedRange]:
    listed = [patch for tensor in report.tensors.values() for patch in tensor.patches]
    return list(dict.fromkeys(listed))


@pytest.mark.parametrize("kind", MENDED)
def test_the_bytes_that_are_listed_as_patched_make_the_file_whole(
    kind: str, tmp_path: Path
) -> None:
    prefix = save(tmp_path / "run" / "m")
    whole = {str(path): path.read_bytes() for path in (data_of(prefix), index_of(prefix))}
    damage, rule = MENDED[kind]
    evidence = damage(prefix)
    recovery = ckptparse.recover(prefix, evidence=evidence)
    patches = patches_of(recovery.report)
    assert patches
    for path, wanted in whole.items():
        raw = bytearray(Path(path).read_bytes())
        for patch in patches:
            if patch.path != path:
                continue
            given = wanted[patch.offset : patch.offset + patch.size]
            stands = bytes(raw[patch.offset : patch.offset + patch.size])
            assert patch == PatchedRange.of(path, patch.offset, stands, given)
            raw[patch.offset : patch.offset + patch.size] = given
        assert bytes(raw) == wanted
    changed = [tensor for tensor in recovery.report.tensors.values() if tensor.patches]
    assert all(tensor.status == "corrected" and str(rule) in rules(tensor) for tensor in changed)
    assert all(rules(tensor)[-1] == "checksum" for tensor in changed)


@pytest.mark.parametrize("kind", MENDED)
def test_the_map_of_a_file_shows_what_was_patched(kind: str, tmp_path: Path) -> None:
    prefix = save(tmp_path / "run" / "m")
    report = ckptparse.recover(prefix, evidence=MENDED[kind][0](prefix)).report
    patches = patches_of(report)
    for path, file in report.files.items():
        drawn = [(part.start, part.stop) for part in file.ranges if part.kind == "patched"]
        listed = sorted((p.offset, p.offset + p.size) for p in patches if p.path == path)
        assert drawn == listed
    assert "~ patched" in report.render(maps=True)
    assert "~ patched" not in ckptparse.verify(prefix).render(maps=True)


def test_a_long_patch_is_listed_by_its_hash_and_a_short_one_by_its_bytes() -> None:
    short, long = PatchedRange.of("f", 3, b"ab", b"xy"), PatchedRange.of("f", 3, b"", bytes(65))
    assert (short.old, short.new, short.size) == (b"ab", b"xy", 2)
    assert (long.old, long.new, long.size) == (None, None, 65)
    assert long.to_dict() == {
        "path": "f",
        "offset": 3,
        "size": 65,
        "old": None,
        "new": None,
        "old_sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "new_sha256": "98ce42deef51d40269d542f5314bef2c7468d401ad5d85168bfab4c0108f75f7",
        "inside": None,
    }


# Evidence


def test_what_is_whole_is_proved_by_its_entry_and_its_checksum(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m")
    for report in (ckptparse.verify(prefix), ckptparse.recover(prefix).report):
        entry, checksum = report.tensors["w"].evidence
        assert entry.rule is EvidenceRule.ENTRY and entry.path == str(index_of(prefix))
        assert checksum.to_dict() == {
            "rule": "checksum",
            "path": str(data_of(prefix)),
            "offset": 400,
            "size": 20000,
            "chance": 2.0**-32,
            "inside": None,
        }
    assert entry.offset == 0 and 0 < (entry.size or 0) < index_of(prefix).stat().st_size


def test_bytes_that_lie_elsewhere_say_where(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m")
    raw = data_of(prefix).read_bytes()
    data_of(prefix).write_bytes(b"junk of 16 bytes" + raw)
    tensor = ckptparse.recover(prefix)["w"]
    assert rules(tensor) == ["entry", "shifted", "checksum"]
    assert [record.offset for record in tensor.evidence][1:] == [416, 416]
    assert tensor.patches == ()


def test_a_file_that_was_named_is_the_evidence(tmp_path: Path) -> None:
    prefix = save(tmp_path / "run" / "m")
    data_of(prefix).unlink()
    np.save(tmp_path / "w.npy", WEIGHTS)
    tensor = ckptparse.recover(prefix, evidence=[tmp_path / "w.npy"])["w"]
    assert rules(tensor) == ["entry", "file", "checksum"]
    assert {record.path for record in tensor.evidence[1:]} == {str(tmp_path / "w.npy")}


def test_a_value_that_the_checksum_determines_says_so(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", rate=np.float32(0.125), big=np.int64(1 << 40))
    data_of(prefix).unlink()
    recovery = ckptparse.recover(prefix)
    assert rules(recovery["rate"]) == ["entry", "value"]
    assert rules(recovery["big"]) == ["entry", "fitting value"]
    assert recovery["big"].status == "unverified"


def test_bytes_without_proof_say_that_their_checksum_disagrees(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m")
    change(data_of(prefix), 4096, np.random.default_rng(3).bytes(512))
    assert rules(ckptparse.verify(prefix).tensors["w"]) == ["entry", "mismatch"]
    assert rules(ckptparse.recover(prefix)["w"]) == ["entry", "mismatch"]


def test_a_cut_is_the_evidence_of_what_is_left_before_it(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m")
    data_of(prefix).write_bytes(data_of(prefix).read_bytes()[:9000])
    tensor = ckptparse.recover(prefix)["w"]
    assert tensor.status == "unverified" and rules(tensor) == ["entry", "cut off"]


def test_the_shapes_of_a_lost_index_are_its_evidence(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m")
    index_of(prefix).unlink()
    recovery = ckptparse.recover(prefix, shapes={"w": (5000,), "b": (100,)})
    assert rules(recovery["w"]) == ["sorted names", "place"]


def test_every_rule_of_a_rebuilt_index_is_a_rule_of_evidence() -> None:
    assert set(view._RECORDS) == set(Rule)


def test_a_sliced_tensor_has_the_evidence_of_each_slice(tmp_path: Path) -> None:
    made = builder.Bundle()
    value = np.arange(60, dtype=np.float32).reshape(10, 6)
    made.add_sliced("t", value, [[(0, 4), None], [(4, 6), None]])
    made.write(tmp_path / "m")
    for report in (
        ckptparse.verify(tmp_path / "m"),
        ckptparse.recover(tmp_path / "m").report,
    ):
        assert rules(report.tensors["t"]) == ["entry", "checksum", "checksum"]


def test_a_record_of_v1_has_the_evidence_of_its_block(tmp_path: Path) -> None:
    made = v1_builder.LegacyFile()
    made.add("w", WEIGHTS[:10])
    path = tmp_path / "v1.ckpt"
    made.write(path)
    evidence = ckptparse.verify(path).tensors["w"].evidence
    assert [str(record.rule) for record in evidence] == ["entry", "checksum"]
    assert {record.path for record in evidence} == {str(path)}


def test_evidence_and_patches_stand_in_the_json(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m")
    one_bit(prefix)
    told = ckptparse.recover(prefix).report.to_dict()["tensors"]["w"]
    assert json.loads(json.dumps(told)) == told
    (patch,) = told["patches"]
    assert (patch["path"], patch["offset"], patch["size"]) == (str(data_of(prefix)), 1000, 1)
    assert int(patch["old"], 16) ^ int(patch["new"], 16) == 4
    assert [record["rule"] for record in told["evidence"]] == ["entry", "bit", "checksum"]


def test_evidence_says_what_its_offset_counts_in(tmp_path: Path) -> None:
    """In a member, a dataset or a stream; in the file itself nothing is said."""
    arrays = {f"t{n}": np.random.default_rng(n).normal(size=(50 + n, 70)) for n in range(3)}
    made = builder.Bundle()
    for name, array in arrays.items():
        made.add(name, array)
    made.write(tmp_path / "whole" / "model")
    (tmp_path / "lost").mkdir()
    shutil.copy(tmp_path / "whole" / "model.index", tmp_path / "lost")
    name = "model.data-00000-of-00001"
    raw = (tmp_path / "whole" / name).read_bytes()
    (tmp_path / "raw.gz").write_bytes(gzip.compress(raw))
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(tmp_path / "whole", "run")
    np.savez(tmp_path / "w.npz", **arrays)
    (tmp_path / "raw.bin").write_bytes(b"ahead" + raw)
    for file, inside in {
        "raw.gz": "unpacked",
        "all.tar": f"run/{name}",
        "w.npz": "t1.npy",
        "raw.bin": None,
    }.items():
        recovery = ckptparse.recover(tmp_path / "lost" / "model", evidence=[tmp_path / file])
        tensor = recovery["t1"]
        assert tensor.status == "corrected" and tensor.source is not None, file
        found = [one for one in tensor.evidence if one.path == str(tmp_path / file)]
        assert {one.inside for one in (tensor.source, *found)} == {inside}, file
        assert tensor.outcome.to_dict()["source"]["inside"] == inside
        assert ("img_offset" in recovery.to_dfxml()) is (inside is None)
        if inside is None:
            own = (tmp_path / file).read_bytes()[tensor.source.offset :][: tensor.source.size]
            assert own == arrays["t1"].tobytes()
        else:
            assert f"({inside}):" in str(tensor.source)


def test_patches_of_a_file_that_was_converted_say_so(tmp_path: Path) -> None:
    """One bit is flipped, and line ends are converted: in the file the bit lies further on."""
    file = v1_builder.LegacyFile()
    file.add("w", WEIGHTS)
    raw = bytearray(file.data())
    raw[-5000] ^= 1
    path = tmp_path / "model.ckpt"
    path.write_bytes(raw.replace(b"\n", b"\r\n"))
    recovery = ckptparse.recover(path)
    (patch,) = recovery["w"].patches
    assert (patch.offset, patch.inside) == (len(raw) - 5000, "conversion undone")
    assert patch.old == raw[-5000:-4999]
    report = recovery.report.files[str(path)]
    assert {part.kind for part in report.ranges} == {"bad"}
    assert recovery["w"].read().tobytes() == WEIGHTS.tobytes()
