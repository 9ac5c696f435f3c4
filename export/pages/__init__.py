"""Pages as blocks of text and tables, rendered to Markdown and HTML, and how numbers are written."""
