"""Checkpoints inside other things: disk images, swap files, what a file rescuer brought up.

mapfile   what ddrescue could not read
tables    indexes and V1 files, found by their footers
extents   where the payloads of a data file lie, block by block
scan      what an image holds, put together
"""
