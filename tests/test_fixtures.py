"""The fixtures themselves: complete, small, and each with a sentence that says what it shows."""

from __future__ import annotations

import expected
import pytest

MAX_BYTES = 3_000_000


def test_all_fixtures_together_are_under_three_megabytes() -> None:
    files = (path for path in expected.FIXTURES.rglob("*") if path.is_file())
    assert sum(path.stat().st_size for path in files) < MAX_BYTES


@pytest.mark.parametrize("name", expected.names())
def test_every_case_has_a_sentence_and_its_files(name: str) -> None:
    case = expected.load(name)
    assert case.shows.endswith(".")
    assert case.tensorflow
    for file, size in case.files.items():
        assert (case.root / file).stat().st_size == size


@pytest.mark.parametrize("name", expected.names())
def test_every_file_belongs_to_a_case(name: str) -> None:
    case = expected.load(name)
    if case.root.name != name.rsplit("/", 1)[-1]:
        pytest.skip("its files lie beside other cases")
    found = {p.relative_to(case.root).as_posix() for p in case.root.rglob("*") if p.is_file()}
    assert found == set(case.files)


@pytest.mark.parametrize("name", expected.names())
def test_small_values_agree_with_their_number(name: str) -> None:
    for checkpoint in expected.load(name).checkpoints:
        for tensor in checkpoint.tensors.values():
            count = 1
            for size in tensor.shape:
                count *= size
            assert tensor.values is None or len(tensor.values) == count


def test_the_list_of_cases_is_complete() -> None:
    listed = (expected.FIXTURES / "README.md").read_text()
    assert [name for name in expected.names() if f"`{name}`" not in listed] == []
