"""Pages as blocks of text and tables, rendered to Markdown, and how numbers are written."""
