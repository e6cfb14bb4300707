"""Rebuild a lost index from evidence of which tensors are in the data files.

layout     which tensors are in each data file, in which order; all evidence is turned into this
graphs     layouts from graphs: `.meta`, event files, SavedModels
shapes     layouts from shapes that a person, a container's header or a Keras model gives
sources    layouts for one checkpoint: graphs beside it, evidence, siblings' indexes
view       a rebuilt index, in the form in which others are read
encoding   the bytes of a rebuilt index, as TensorFlow would write them
fit        a layout applied to the data files: offsets, sizes, checksums
counted    strings and variants, whose bytes say how long they are
"""
