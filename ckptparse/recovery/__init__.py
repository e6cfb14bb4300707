"""What a broken checkpoint still tells: scanning, proof by checksum, and mending.

Recovery reads beside the strict reader and never loosens it. Its modules, from the ground up:

    field       CRC-32C as arithmetic: polynomials over GF(2), discrete logarithms
    inversion   values that a checksum alone determines
    flips       bits and bytes whose change explains a wrong checksum
    search      tensors found at unknown offsets by their checksum
"""
