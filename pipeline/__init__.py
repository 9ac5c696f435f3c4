"""The training side: from images and labels to a stripped segmentor."""
