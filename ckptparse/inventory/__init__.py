"""What lies at a path: one answer, from which the strict and the lenient choice are made.

places              a path means a prefix, a directory, a file, or several; the strict choice
by_file, by_directory, by_state, by_model     what each of these means
legacy, listed      V1 files, which may be several; what a state file names
parts, survey       everything that lies of one checkpoint, each file with its origin
lenient             which checkpoint is taken though it is broken, and why
identities, absent  what a path is, and what is said if it is no checkpoint
models              which graph, which SavedModel
inventory, folders  the answer as a value; each directory listed once
"""
