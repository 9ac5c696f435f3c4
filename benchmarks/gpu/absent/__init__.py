"""Stand-ins for packages that a bare GPU machine lacks."""
