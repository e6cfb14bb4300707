"""Messages about a program and a checkpoint that do not fit together. Neither is damaged."""

from __future__ import annotations

from ckptparse.explanation.value import VERIFY, Explanation, row

__all__ = ["MODELS"]

_SHAPE = Explanation(
    "shape.mismatch",
    "A tensor of the file has another shape than the variable that takes it.",
    "The model was built with other settings (classes, layers, vocabulary, image format) than the "
    "one that was saved. The file is not damaged.",
    "Compare with `ckptparse.list_variables(path)`, and leave the tensors that differ out.",
)
_TYPE = Explanation(
    "type.mismatch",
    "A tensor of the checkpoint has another type than the variable that takes it.",
    "The program was changed (float32 and float64, int32 and int64, half precision), or the "
    "checkpoint was averaged or converted. It is not damaged.",
    "Read the values with `ckptparse.read(path)` and cast them, or build the variable with the "
    "type that `ckptparse.open(path)[name].dtype` tells.",
)
_UNUSED = Explanation(
    "name.unused",
    "The checkpoint holds values that no object of the program took.",
    "The program has not built all of the objects that were saved (an optimizer, a head for "
    "another task, layers that are made at the first call), or it only wants the weights. The "
    "checkpoint is not damaged.",
    "If nothing is missing in the model, `status.expect_partial()` silences this; "
    "`ckptparse.list_variables(path)` lists what the checkpoint holds.",
)
_MISSING = Explanation(
    "name.missing",
    "The model asks for a name that the checkpoint does not have.",
    "The model's code or the version of Keras names its variables differently, the optimizer's "
    "slots were not saved, or it is another model's checkpoint. A damaged checkpoint can raise "
    "this too: TensorFlow skips index blocks that it cannot read.",
    f"Compare with `ckptparse.list_variables(path)`; to rule out damage: {VERIFY}.",
)
_STYLE = Explanation(
    "name.style",
    "A checkpoint that was saved by names is restored by objects, or the other way round.",
    "One of the two was made with `tf.train.Saver`, the other with `tf.train.Checkpoint` or Keras. "
    "TensorFlow then matches variables by their names, and does not find those that were renamed. "
    "Nothing is damaged.",
    "Check that no name is reported as missing or unused. `ckptparse.read(path, "
    'naming="variable")` gives the values under the variables\' own names.',
)
_OPTIMIZER = Explanation(
    "optimizer.mismatch",
    "The optimizer in the checkpoint is of another generation of Keras, or of another kind, than "
    "the program's.",
    "Keras 2.11 changed how optimizers keep their state, and Keras 3 changed it again. The weights "
    "of the model are not concerned, and nothing is damaged.",
    "Restore the weights without the optimizer, or use `tf.keras.optimizers.legacy.Adam` (and its "
    "like) in TensorFlow 2.11 to 2.15. `ckptparse.open(path).optimizer` gives the saved state.",
)
_MODEL = Explanation(
    "model.mismatch",
    "The layers in the file are not those of the model that takes them.",
    "The model was built by other code, or is not built yet (it has no variables before its first "
    "call or `build`), or the file was written by another version of Keras. The file is not "
    "damaged.",
    "Build the model as it was when it was saved, and call it once before loading. To see what the "
    "file holds, open it with h5py (`.h5`, `.weights.h5`); of a checkpoint, "
    "`ckptparse.list_variables(path)` lists names and shapes.",
)
_VERSION = Explanation(
    "version.mismatch",
    "The file's version numbers say that this TensorFlow should not read it.",
    "A newer TensorFlow wrote it, or the header is damaged.",
    f"Read it with the TensorFlow that wrote it; to rule out damage: {VERIFY}.",
)

MODELS = (
    row(
        r"expected dtype \w+ does not equal original dtype|"
        r"expected to restore a tensor of type \w+, got a tensor of type|"
        r"trying to restore a variable with dtype",
        _TYPE,
    ),
    row(
        r"legacy keras optimizer|skipping variable loading for optimizer|"
        r"expecting \w*optimizer to be a trackable|optimizer.{0,80}no attribute 'add_slot'|"
        r"'_UserObject' object has no attribute 'add_slot'",
        _OPTIMIZER,
    ),
    row(
        r"assign requires shapes of both tensors to match|"
        r"layer (?:weight )?shape .{1,80}? not compatible with (?:provided )?weight shape|"
        r"shape mismatch in layer|received saved weight with shape|"
        r"tensor's shape .{1,80}? is not compatible with supplied shape|"
        r"shape of variable .{1,200}? doesn't match|"
        r"cannot assign value to variable .{1,200}?shape mismatch|"
        r"both shapes must be equal, but are .{1,40}? for '[^']*assign|"
        r"trying to restore a tensor with shape|"
        r"incompatible tensor with shape .{1,80}? when attempting to restore",
        _SHAPE,
    ),
    row(
        r"shape(?:s)? .{0,80}(?:incompatible|mismatch|does not match|must match)",
        _SHAPE,
        needs=r"checkpoint|restore|saved|load_weights|weight file",
    ),
    row(r"axes don't match array", _SHAPE, within=r"weight|load_model|keras"),
    row(
        r"trying to load a weight file containing \d+ layers|layer count mismatch when loading|"
        r"expected \d+ variables?, but received \d+ variables? during loading|"
        r"never built and thus it doesn't have any variables|"
        r"a total of \d+ objects could not be loaded|weight count mismatch for layer",
        _MODEL,
    ),
    row(
        r"value in checkpoint could not be found in the restored object|"
        r"unresolved object in checkpoint|deleted with unrestored values|"
        r"(?:weights|layers) (?:of|from) the model checkpoint at .{1,300}? were not used",
        _UNUSED,
    ),
    row(
        r"key .{1,300}? not found in checkpoint|tensor name .{1,300}? not found in checkpoint|"
        r"missing in checkpoint \S|is not available in checkpoint|"
        r"restoring from checkpoint failed[\s\S]{0,200}variable name|"
        r"some variables .{0,60}were not found|were not bound to checkpointed values|"
        r"were not initialized from the (?:model|pytorch model|tf 2\.0 model) checkpoint|"
        r"\(object '[^']*' doesn't exist\)",
        _MISSING,
    ),
    row(
        r"restoring an object-based checkpoint using a name-based saver|"
        r"restoring a name-based tf\.train\.saver checkpoint using the object-based",
        _STYLE,
    ),
    row(
        r"checkpoint (?:version|was produced by)|min_consumer|bad_consumer|"
        r"requires .{0,40}consumer|tensor bundle.{0,40}version",
        _VERSION,
    ),
)
