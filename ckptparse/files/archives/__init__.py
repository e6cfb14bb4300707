"""Checkpoints inside archives, read where they lie.

packing    which archive a file is, by its first bytes; what undoes its compression
listing    the members of a tar or zip archive: names, sizes, places
storage    the members as a `Storage`
choosing   which checkpoint the path of an archive means

No name of a member is ever a path of this machine: what is unpacked goes to temporary files without
names, which the system removes when they are closed, or when the process ends however it does.
"""
