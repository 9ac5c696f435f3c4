"""One file for each tool: where it puts what, and what of it datumaro would misread."""
