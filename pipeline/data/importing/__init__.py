"""Datasets as labelling tools export them, brought into the layout of `folder`; runs in an environment of its own."""
