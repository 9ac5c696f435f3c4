"""The generator behind the dataset `streets`: a random street is laid out, drawn with exact labels, and photographed.

Every image is the same, byte for byte, on any machine: randomness comes from the raw bits of PCG64, which NumPy keeps
stable, and pixels from element-wise float32 operations that IEEE 754 rounds one way. So there are no transcendental
functions, no reductions over floats and no matrix products in here.
"""
