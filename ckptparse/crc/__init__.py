"""CRC-32C as arithmetic: what can be found with a checksum alone.

field       polynomials over GF(2), discrete logarithms
inversion   values that a checksum determines
flips       bits and bytes whose change explains a wrong checksum
registers   the CRC registers within a buffer, one after the other
planes      one operation on the same bit of 32 words
sequences   what all searches at one step share: marks of powers, masks
marks       16 bits of each register, taken back to the first position
windows     windows of bytes tested for their sizes and checksums
search      bytes found at unknown offsets by their checksum; grid: block by block in a stream
choices     what to choose so that a checksum agrees
copies      damaged copies of the same bytes, put together
"""
