"""What machine this is, and what it was doing while something was measured."""
