"""Statistics of a tensor's values, gathered piece by piece in little memory.

    summary         `Summary`: smallest, largest, mean, deviation, zeros, NaN, infinities
    codes           elements as codes of 16 bits: exact for small kinds, rounded for large ones
    distribution    `Distribution`: histogram and quantiles
    heat            `HeatMap`: the means of blocks of a matrix
    gathering       `Gatherer`, which takes pieces, and `measure`, which reads a tensor by them

Every kind of element is measured: of complex numbers the magnitudes, of strings the lengths in
bytes, of bools 0 and 1. NaN and infinities are counted, and otherwise left out.
"""
