"""One frame for all methods: trace, fold, insert quantizers, find units, learn them front to back, deploy.

From the steps to files:

    graph.py       tracing, what is supported, folding of batch norms
    insert.py      quantized layers and consumer-owned quantizers
    units.py       layers and blocks, cut out of the graph
    scales.py      MSE-searched and min-max grids
    recipe.py      every setting, and the phases that make a method
    prefix.py      activations of the float and the quantized prefix, computed once
    learning.py    the reconstruction loop
    sweep.py       one pass over the units
    resume.py      a file per learned unit
    report.py      what each unit and each quantizer did
    quantize.py    the whole: `quantize`, calibration, deployment
"""
