"""The command lines whose output is kept in `golden/`, each by its name."""

from __future__ import annotations

CASES = {
    "ls": "ls fixtures/saver/my_model",
    "ls_long": "ls --long fixtures/slices/partitioned_variable",
    "ls_odd_names": "ls fixtures/names/odd/model",
    "ls_not_utf8": "ls fixtures/names/not_utf8/model",
    "ls_tree": "ls --tree fixtures/objects/nested",
    "ls_slots": "ls --slots fixtures/objects/tf1_optimizer",
    "ls_variable_names": "ls --naming variable fixtures/objects/tf1_optimizer",
    "show": "show fixtures/saver/my_model weights",
    "show_rows": "show fixtures/saver/my_model 'weights[1:, ::2]'",
    "show_stats": "show --stats fixtures/saver/my_model weights",
    "show_strings": "show fixtures/dtypes/strings/model matrix",
    "show_missing": "show fixtures/saver/my_model weihgts",
    "info": "info fixtures/saver/my_model",
    "info_saved_model": "info fixtures/saved_model/keras2_sequential",
    "info_graph": "info fixtures/saver/my_model.meta",
    "verify": "verify fixtures/saver/my_model fixtures/slices/hole/model",
    "verify_map": "verify --map fixtures/crash/truncated_index/model",
    "verify_all": "verify -v fixtures/saver/my_model",
    "verify_long_names": "verify fixtures/crash/sharded_part_moved/model",
    "recover": "recover fixtures/slices/hole/model -o rescued",
    "recover_dry_run": "recover --dry-run fixtures/crash/truncated_index/model",
    "convert": "convert fixtures/objects/keras2_optimizer weights.npz --naming variable",
    "convert_dry_run": (
        "convert --dry-run --drop-slots --layout torch --dtype bfloat16 --naming variable "
        "--rename /=. fixtures/objects/keras2_legacy_optimizer/weights model.safetensors"
    ),
    "write": "write fixtures/saver/my_model model.ckpt",
    "write_dry_run": "write --dry-run fixtures/saver/my_model model.ckpt",
    "diff": "diff fixtures/objects/nested/ckpt-1 fixtures/objects/nested/ckpt-2",
    "diff_equal": "diff fixtures/saver/my_model fixtures/saver/my_model",
    "average": "average fixtures/objects/manager/ckpt-4 fixtures/objects/manager/ckpt-5 -o mean",
    "average_dry_run": (
        "average -n fixtures/objects/manager/ckpt-4 fixtures/objects/manager/ckpt-5 -o mean"
    ),
    "stats": "stats fixtures/saver/my_model",
    "identify": "identify fixtures/saver/my_model.index fixtures/graphs/frozen_tf1 fixtures/saver",
    "explain": (
        "explain 'Checksum does not match: stored 0 "
        "vs. calculated on the restored bytes 4004437628'"
    ),
    "explain_unknown": "explain 'all is well'",
    "latest": "latest fixtures/saver/scopes",
    "latest_none": "latest fixtures/names",
    "dump": "dump fixtures/saver/my_model.index",
    "dump_data": "dump fixtures/saver/my_model.data-00000-of-00001",
}
