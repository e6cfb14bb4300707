"""Files of any kind that may hold what was lost, or say what it was.

payloads   runs of bytes of given sizes and checksums, in any container
containers what archives and other containers say of where their parts lie
graphs     graphs in `.meta` files, SavedModels and event files
"""
