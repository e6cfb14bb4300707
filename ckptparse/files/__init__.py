"""Find, read and write files. Only this package opens, lists, asks or writes a file system.

storage    the contract: `Storage` finds and opens files, a `Source` is one of them
local      files of this machine
memory     a mapping from names to bytes
archives   members of archives
pool       sources opened when first needed, only so many at a time
placing    files that get their name only when they are complete
context    storage, limits and progress of one call
"""
