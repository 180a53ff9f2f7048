"""AQuant: adaptive activation rounding for post-training quantization (arXiv 2208.11945).

Only the abstracts of the paper's three versions could be read, so this is an independent re-derivation. From the
paper's parts to files:

    quantized weights and activations    quantizer.py, layers.py
    the adaptive border                  border.py
"""
