"""A folder that nobody has described yet: which dataset it seems to be, and what is in it."""
