"""Where bytes lie: the only package that opens, lists, asks or writes a file system.

storage    the contract: `Storage` finds and opens files, a `Source` is one of them
local      files of this machine
memory     a mapping from names to bytes
archives   members of archives
pool       sources opened when first needed, a bounded number at a time
placing    files that appear under their name only when they are whole
context    storage, limits and progress of one call, handed down
"""
