"""Find what is at a path. The strict and the lenient choice are made from the same answer.

places              a path means a prefix, a directory, a file, or several; the strict choice
by_file, by_directory, by_state, by_model     what each of these means
legacy, listed      V1 files, which may be several; the checkpoints that a state file names
parts, survey       all files of one checkpoint, each with its origin
lenient             which checkpoint is taken even if it is damaged, and why
identities, absent  what a path is, and the error if it is no checkpoint
models              which graph, which SavedModel
inventory, folders  the answer as a value; each directory is listed once
"""
