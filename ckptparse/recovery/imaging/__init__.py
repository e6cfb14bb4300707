"""Find checkpoints inside disk images, swap files, and files that a rescue program saved.

mapfile   the parts that ddrescue could not read
tables    indexes and V1 files, found by their footers
pieces    what is sought, and where it was found
extents   where the payloads of a data file are, block by block
splits    payloads in two stretches, or beside small ones
stretches payloads in any number of stretches, between gaps
scan      the checkpoints of an image, put together
"""
