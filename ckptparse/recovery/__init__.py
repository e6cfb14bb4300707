"""What a broken checkpoint still tells: scanning, proof by checksum, and mending.

Recovery reads beside the strict reader and never loosens it. Its modules, from the ground up:

    field       CRC-32C as arithmetic: polynomials over GF(2), discrete logarithms
    inversion   values that a checksum alone determines
    flips       bits and bytes whose change explains a wrong checksum
    search      tensors found at unknown offsets by their checksum
    report      what was found, as values
    files       data files while they are read, and their holes
    survey      which files belong to the checkpoint, leftovers included
    scan, view  what an index still says, and what of it is proved
    check       one payload against its bytes
    assess      all of them
    diagnose    what happened to those that are not whole
    images      lost tensors in any other bytes
    findings    problems and maps of files
    siblings, others   other checkpoints, as evidence and as a way out
    mend, recipe       how one payload is got back
    legacy             all of this for V1 files
    result, recover    what the caller gets
"""
