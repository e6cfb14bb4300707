"""Find out what is whole and what is not. Every byte that can be checked is checked.

report              what was found, as values
readers             data files while they are read, and their holes
survey              which files belong to the checkpoint, leftovers included
salvaged_table      what a table, whole or broken, still says
salvaged_blocks     where the blocks of such a table are
index_view          what an index says of tensors, and what of it is proved
check               one payload against its bytes
case                all payloads of a checkpoint
diagnose            what happened to the payloads that are not whole
summary             problems and maps of files
neighbours          the other checkpoints of the directory
verify              what the caller gets
"""
