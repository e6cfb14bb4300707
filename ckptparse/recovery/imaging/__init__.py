"""Find checkpoints inside disk images, swap files, and files that a rescue program saved.

mapfile   the parts that ddrescue could not read
tables    indexes and V1 files, found by their footers
extents   where the payloads of a data file are, block by block
scan      the checkpoints of an image, put together
"""
