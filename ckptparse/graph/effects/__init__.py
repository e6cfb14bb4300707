"""What a graph would do beyond computing, if someone ran it: files, Python, libraries, network.

    effect      `Effect`, and what it says
    table       the operations, each with what it does, where its file's name stands, and its source
    known_ops   the operations that TensorFlow itself brings
    tracing     where the name of a file comes from
    finding     the search through a graph, its functions and the graphs inside of its constants

Nothing is run.
"""
