"""What `info` tells of each kind of thing: as JSON first, and from that for a person.

Each part is asked for by itself, so that one broken file leaves the rest told.
"""
