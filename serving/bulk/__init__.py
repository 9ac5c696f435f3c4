"""Segments what lies below a URI on one machine or many, with Ray Data (extra `bulk`)."""
