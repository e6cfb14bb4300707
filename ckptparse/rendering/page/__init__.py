"""One page that shows what is in a checkpoint, a SavedModel or a graph, and what is broken.

    subject      what the page is made of, and how it is opened
    measuring    statistics of every tensor, by several threads
    rows         the tensors, as columns of small numbers
    files        the ranges of each file
    model        layers, optimizers, signatures, assets, effects
    uses         the graph of variables and who uses them, collapsed by scope
    making       `report_page`: all of it in one file
    web/         the page's own script and style, and two libraries with their licences

The page asks for nothing from anywhere: scripts, styles and data stand in it, and its
Content-Security-Policy allows only those.
"""
