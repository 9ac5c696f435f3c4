"""Other tools beside ours: files to masks, start, memory, size, and how many damaged engines their checks see."""
