"""CRC-32C as arithmetic: what can be found with a checksum alone.

field       polynomials over GF(2), discrete logarithms
inversion   values that a checksum determines
flips       bits and bytes whose change explains a wrong checksum
search      bytes found at unknown offsets by their checksum
choices     what to choose so that a checksum agrees
copies      damaged copies of the same bytes, put together
"""
