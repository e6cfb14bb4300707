"""What TensorFlow wrote into fixtures/ is read as TensorFlow reads it, and further where it cannot.

The last part reads, for lines of the list of behaviours about saving, what TensorFlow left when it
saved that way.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import expected
import numpy as np
import pytest
from expected import ExpectedCheckpoint, ExpectedTensor, assert_matches
from packages import ml_dtypes

import ckptparse
from ckptparse import CheckpointNotFoundError, MalformedError, UnsupportedError

pytestmark = pytest.mark.proto

V2 = expected.checkpoints("v2")
NUMPY_RANK = 64 if int(np.__version__.split(".", maxsplit=1)[0]) >= 2 else 32
KINDS_BESIDE = ("bfloat16", "float8", "float4", "int4", "uint4", "int2", "uint2")
"""How the names of those begin that numpy lacks; early releases of ml_dtypes lack some, too."""
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def name_of(checkpoint: ExpectedCheckpoint) -> str:
    return checkpoint.path.relative_to(expected.FIXTURES).as_posix()


def by_name(checkpoints: list[ExpectedCheckpoint]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("wrote", checkpoints, ids=map(name_of, checkpoints))


def data_files(wrote: ExpectedCheckpoint) -> list[str]:
    names = os.listdir(wrote.path.parent)
    return [name for name in names if name.startswith(f"{wrote.path.name}.data-")]


def broken(wrote: ExpectedCheckpoint) -> dict[str, Any]:
    """Return what is stored of tensors that cannot be whole: name to shape, dtype and why."""
    return dict(wrote.data.get("broken", {}))


def fits(dtype: str, shape: tuple[int, ...]) -> bool:
    """Tell whether the installed numpy and ml_dtypes can hold a tensor."""
    missing = dtype.startswith(KINDS_BESIDE) and not (ml_dtypes and hasattr(ml_dtypes, dtype))
    return not missing and len(shape) <= NUMPY_RANK


def assert_variants_match(array: np.ndarray[Any, Any], tensor: ExpectedTensor) -> None:
    """Compare variants element by element, as far as TensorFlow could be asked for them."""
    assert array.shape == tensor.shape
    assert all(element.type_name.startswith("tensorflow::") for element in array.ravel())
    for element, row in zip(array.ravel(), tensor.elements or [], strict=False):
        assert element.type_name == row["type_name"]
        assert element.metadata.decode("latin-1") == row["metadata"]
        for inner, expected_inner in zip(element.tensors, row["tensors"], strict=True):
            assert inner.shape == tuple(expected_inner["shape"])
            if expected_inner["dtype"] != "variant":
                assert_matches(inner, ExpectedTensor.from_json({"name": "", **expected_inner}))


@by_name([wrote for wrote in V2 if "rule" not in wrote.data])
def test_names_shapes_and_kinds_are_listed_sorted_by_bytes(wrote: ExpectedCheckpoint) -> None:
    shapes = {name: tensor.shape for name, tensor in wrote.tensors.items()}
    shapes |= {name: tuple(row["shape"]) for name, row in broken(wrote).items()}
    names = sorted(shapes, key=lambda name: name.encode("utf-8", "surrogateescape"))
    assert ckptparse.list_variables(wrote.path) == [(name, shapes[name]) for name in names]
    with ckptparse.open(wrote.path) as checkpoint:
        assert list(checkpoint) == names
        assert checkpoint.num_shards == len(data_files(wrote))
        assert checkpoint.byte_order == "little"
        assert all(Path(file).is_file() for file in checkpoint.files)


@by_name(V2)
def test_every_tensor_is_read_bit_for_bit(wrote: ExpectedCheckpoint) -> None:
    with ckptparse.open(wrote.path) as checkpoint:
        for name, tensor in wrote.tensors.items():
            if not fits(tensor.dtype, tensor.shape):
                with pytest.raises(UnsupportedError):
                    checkpoint[name].read()
            elif tensor.dtype == "variant":
                assert_variants_match(checkpoint[name].read(), tensor)
            else:
                assert_matches(checkpoint[name].read(), tensor)


@by_name([wrote for wrote in V2 if not broken(wrote) and "rule" not in wrote.data])
def test_read_gives_all_at_once_and_maps_as_well(wrote: ExpectedCheckpoint) -> None:
    names = [name for name, t in wrote.tensors.items() if fits(t.dtype, t.shape)]
    for mmap in (False, True):
        arrays = ckptparse.read(wrote.path, names, mmap=mmap)
        assert list(arrays) == names
        for name in names:
            if wrote.tensors[name].dtype != "variant":
                assert_matches(arrays[name], wrote.tensors[name])
            assert arrays[name].flags.writeable


@by_name([wrote for wrote in V2 if "parts" in wrote.data])
def test_the_region_of_every_stored_slice_is_read_alone(wrote: ExpectedCheckpoint) -> None:
    overlapping = {name for name, row in broken(wrote).items() if row["why"] == "overlap"}
    with ckptparse.open(wrote.path) as checkpoint:
        for row in wrote.data["parts"]:
            part = ExpectedTensor.from_json(row)
            if part.name in overlapping or not fits(part.dtype, part.shape):
                continue
            region = tuple(
                slice(None) if length < 0 else slice(start, start + length)
                for start, length in row["extents"]
            )
            assert_matches(checkpoint[part.name][region], part)


@by_name([wrote for wrote in V2 if broken(wrote)])
def test_slices_that_do_not_make_a_whole_are_an_error_that_says_so(
    wrote: ExpectedCheckpoint,
) -> None:
    with ckptparse.open(wrote.path) as checkpoint:
        for name, row in broken(wrote).items():
            words = {"hole": "missing", "overlap": "overlap"}[row["why"]]
            with pytest.raises(MalformedError, match=words) as caught:
                checkpoint[name].read()
            assert caught.value.tensor == name


@pytest.mark.checklist(11)
def test_an_index_of_several_blocks_lists_and_finds_every_tensor() -> None:
    wrote = expected.load("table/several_blocks").checkpoint
    rule = wrote.data["rule"]
    assert (rule["value"], rule["dtype"], rule["shape"]) == ("i * i", "int32", [])
    names = [rule["name"].format(i=i) for i in range(rule["count"])]
    with ckptparse.open(wrote.path) as checkpoint:
        assert list(checkpoint) == sorted(names)
        for i, name in enumerate(names):
            assert checkpoint[name].read() == np.int32(i * i)


# What saving in some way leaves.


def names_in(case: str, prefix: str) -> list[str]:
    return [name for name, _ in ckptparse.list_variables(expected.load(case).root / prefix)]


def latest_of(directory: Path) -> str:
    latest = ckptparse.latest_checkpoint(directory)
    assert latest is not None
    return Path(latest).name


@pytest.mark.checklist(78)
@pytest.mark.parametrize("case", ["saver/scopes", "tf2.12/saver/scopes"])
def test_a_step_given_to_the_saver_is_the_number_in_the_prefix_and_a_tensor(case: str) -> None:
    root = expected.load(case).root
    for step in (1, 2, 10):
        values = ckptparse.read(root / f"model.ckpt-{step}")
        assert values["global_step"].item() == step
    assert latest_of(root) == "model.ckpt-10"
    assert ckptparse.read(root)["global_step"].item() == 10


@pytest.mark.checklist(80)
def test_a_checkpoint_without_a_meta_file_is_read() -> None:
    root = expected.load("saver/moved").root
    assert not list(root.glob("*.meta"))
    assert ckptparse.read(root / "model.ckpt-300").keys() == {"w"}


@pytest.mark.checklist(81, 26)
def test_a_path_without_its_directory_is_an_error_that_names_the_directory(tmp_path: Path) -> None:
    missing = tmp_path / "no" / "such" / "directory"
    with pytest.raises(CheckpointNotFoundError) as caught:
        ckptparse.read(missing / "model")
    assert str(missing) in str(caught.value)


@pytest.mark.checklist(76)
def test_a_prefix_of_any_name_and_number_is_read() -> None:
    case = expected.load("names/prefixes")
    assert len(case.checkpoints) > 5
    for wrote in case.checkpoints:
        assert ckptparse.read(wrote.path).keys() == wrote.tensors.keys()


@pytest.mark.checklist(90)
def test_variables_saved_under_other_names_have_the_names_they_were_saved_under() -> None:
    assert names_in("saver/renamed", "model") == ["renamed/one", "two"]
    with ckptparse.open(expected.load("saver/renamed").root / "model") as checkpoint:
        assert "one" not in checkpoint
        with pytest.raises(ckptparse.TensorNotFoundError, match="one"):
            checkpoint["one"]


@pytest.mark.checklist(92)
def test_a_hash_table_is_its_keys_and_its_values() -> None:
    values = ckptparse.read(expected.load("saver/hash_table").checkpoint.path)
    assert values.keys() == {"bias", "words-keys", "words-values"}
    assert values["words-keys"].dtype == object
    assert values["words-keys"].shape == values["words-values"].shape


@pytest.mark.checklist(95, 96)
def test_names_of_children_are_escaped_in_keys() -> None:
    keys = names_in("objects/names_to_escape", "model")
    for escaped in ("a.Sb.Sc", "c.S", "d.S..S", "d.S..ATTRIBUTES.Sf", "..ATTRIBUTES/a"):
        assert escaped + VALUE in keys


@pytest.mark.checklist(97)
def test_objects_that_hold_each_other_save_each_variable_once() -> None:
    assert names_in("objects/loop", "model") == ["one/other/w" + VALUE, "one/v" + VALUE]


@pytest.mark.checklist(98, 101)
@pytest.mark.parametrize("case", ["objects/nested", "tf2.12/objects/nested"])
def test_an_object_under_two_names_has_one_key_and_every_save_its_own_index(case: str) -> None:
    root = expected.load(case).root
    for prefix in ("ckpt-1", "ckpt-2"):
        keys = names_in(case, prefix)
        assert "model/alias/kernel" + VALUE in keys
        assert not [key for key in keys if key.startswith("model/layers/0")]
    state = ckptparse.checkpoint_state(root)
    assert state is not None
    assert [Path(path).name for path in state.paths] == ["ckpt-2"]


@pytest.mark.checklist(100)
def test_empty_containers_leave_no_keys() -> None:
    assert names_in("objects/empty_containers", "model") == ["v" + VALUE]


@pytest.mark.checklist(102)
def test_attributes_beside_a_root_have_keys_as_if_they_were_its_own() -> None:
    assert names_in("objects/root_and_attributes", "model") == ["v" + VALUE, "w" + VALUE]
    assert names_in("objects/root_and_attributes", "variable") == [VALUE]


@pytest.mark.checklist(105)
def test_what_write_leaves_is_a_checkpoint_without_counter_and_state() -> None:
    root = expected.load("objects/write").root
    assert names_in("objects/write", "model") == ["v" + VALUE]
    assert ckptparse.checkpoint_state(root) is None
    assert ckptparse.read(root).keys() == {"v" + VALUE}


@pytest.mark.checklist(108)
def test_what_an_asynchronous_save_leaves_is_read_as_any_other() -> None:
    root = expected.load("objects/asynchronous").root
    assert latest_of(root) == "ckpt-1"
    assert ckptparse.read(root)["save_counter" + VALUE].item() == 1


@pytest.mark.checklist(109)
def test_one_device_makes_one_data_file_and_three_make_three() -> None:
    one = ckptparse.open(expected.load("saver/my_model").checkpoint.path)
    three = ckptparse.open(expected.load("shards/sharded_saver").checkpoint.path)
    with one, three:
        assert [Path(file).suffix for file in one.files] == [".index", ".data-00000-of-00001"]
        assert len(three.files) == 4
        shards = {tensor.location.shard for tensor in three.values() if tensor.location}
        assert shards <= {0, 1, 2}


@pytest.mark.checklist(112)
def test_a_bound_on_shards_cuts_a_variable_by_rows_over_several() -> None:
    wrote = expected.load("shards/max_size").checkpoint
    with ckptparse.open(wrote.path) as checkpoint:
        assert checkpoint.num_shards == 3
        big = checkpoint["big" + VALUE]
        assert (big.kind, big.shape) == ("sliced", (10, 4))
        assert_matches(big.read(), wrote.tensors["big" + VALUE])
        np.testing.assert_array_equal(big[2:4], big.read()[2:4])


@pytest.mark.checklist(113)
def test_python_state_is_a_string_stored_after_the_variables() -> None:
    with ckptparse.open(expected.load("objects/python_state").checkpoint.path) as checkpoint:
        state = checkpoint["counter/.ATTRIBUTES/py_state"]
        assert state.kind == "string"
        others = [tensor for tensor in checkpoint.values() if tensor.name != state.name]
        assert state.location is not None
        for tensor in others:
            assert tensor.location is not None
            assert tensor.location.offset < state.location.offset


@pytest.mark.checklist(114)
def test_keys_of_a_registered_saver_are_listed_though_no_attribute_names_them() -> None:
    assert "s/custom" in names_in("objects/registered_saver", "model")


@pytest.mark.checklist(115)
def test_iterators_and_tables_are_stored_under_keys_that_end_in_what_they_hold() -> None:
    keys = names_in("objects/iterator_and_tables", "model")
    for key in ("table/.ATTRIBUTES/table-keys", "table/.ATTRIBUTES/table-values"):
        assert key in keys
    assert "iterator/.ATTRIBUTES/ITERATOR_STATE" in keys


@pytest.mark.checklist(117)
def test_slot_variables_of_an_optimizer_are_stored_below_their_variables() -> None:
    keys = names_in("objects/tf1_optimizer", "ckpt-1")
    slots = [key for key in keys if "/.OPTIMIZER_SLOT/" in key]
    owners = {key.split("/.OPTIMIZER_SLOT/", maxsplit=1)[0] + VALUE for key in slots}
    assert {key.split("/")[-3] for key in slots} == {"m", "v"}
    assert owners <= set(keys)


@pytest.mark.checklist(103)
def test_a_saved_model_is_read_by_its_directory_and_a_wrong_name_in_it_is_not_found() -> None:
    root = expected.load("saved_model/keras2_sequential").root
    wrote = expected.load("saved_model/keras2_sequential").checkpoint
    for spelling in (root, root / "variables", root / "saved_model.pb", wrote.path):
        assert ckptparse.read(spelling).keys() == wrote.tensors.keys()
    with pytest.raises(CheckpointNotFoundError):
        ckptparse.read(root / "model")
