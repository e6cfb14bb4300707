"""What lies at a path: one answer, from which the strict and the lenient choice are made.

survey              the files of one checkpoint, each with its origin
"""
