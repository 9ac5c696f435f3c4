"""What stands in a street: one file per kind of thing that is drawn."""
