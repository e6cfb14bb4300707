"""A lost index, rebuilt from whatever still says what lies in the data files.

layout     which tensors lie in each data file, in which order: what any evidence comes to
graphs     layouts from graphs: `.meta`, event files, SavedModels
shapes     layouts from shapes that a person, a container's header or a Keras model gives
stand_in   layouts from the index of another checkpoint of the same model, or from a cut one
encoding   the index that comes of it, byte for byte
fit        a layout laid over the data files: offsets, sizes, checksums
counted    strings and variants, which say themselves how long they are
"""
