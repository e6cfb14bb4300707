"""V1 checkpoints, of 2015 and 2016 and of `Saver(write_version=V1)` (docs/format.md, section 3).

PREFIX                          one table with everything: the list of tensors under the empty
                                key, then a record a slice, with the values inside
PREFIX-00000-of-00002           or several such tables, each with its own list
"""
