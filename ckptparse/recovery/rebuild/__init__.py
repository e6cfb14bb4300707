"""A lost index, rebuilt from whatever still says what lies in the data files.

layout     which tensors lie in each data file, in which order: what any evidence comes to
graphs     layouts from graphs: `.meta`, event files, SavedModels
shapes     layouts from shapes that a person, a container's header or a Keras model gives
sources    layouts for one checkpoint: graphs beside it, evidence, siblings' indexes
view       an index rebuilt, as the pipeline reads one
encoding   the index that comes of it, byte for byte
fit        a layout laid over the data files: offsets, sizes, checksums
counted    strings and variants, which say themselves how long they are
"""
