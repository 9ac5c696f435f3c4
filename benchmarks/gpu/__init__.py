"""What the first GPU has to settle: steps that fail alone and are reported alone, in one JSON file."""
