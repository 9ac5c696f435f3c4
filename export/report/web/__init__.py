"""report.html: one file that needs nothing else, for eyes, keyboard, phone and paper."""
