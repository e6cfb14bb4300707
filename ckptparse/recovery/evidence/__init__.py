"""Files of any kind that may hold lost bytes, or that name lost tensors.

payloads   runs of bytes of given sizes and checksums, in any container
containers where archives and other containers say that their parts are
graphs     graphs in `.meta` files, SavedModels and event files
places     whole data files that are elsewhere, or were changed
"""
