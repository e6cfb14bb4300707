"""The table: LevelDB's sorted string table as TensorFlow writes it (docs/format.md, section 1).

A V2 checkpoint's `.index` and a whole V1 checkpoint are both such a table:

    data block 0 | trailer
    ...
    metaindex block | trailer
    index block | trailer
    footer, 48 bytes
"""
