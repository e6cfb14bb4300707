"""The tensor bundle, TensorFlow's V2 checkpoint (docs/format.md, section 2).

PREFIX.index                    a table: the header under the empty key, then an entry a tensor
PREFIX.data-00000-of-00002      tensors' bytes, one after another, nothing else
PREFIX.data-00001-of-00002
"""
