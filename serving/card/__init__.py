"""The model card and statement beside a branch's engines, and whether the files are those that they name."""
