"""What an engine says of itself and what every other room builds on: manifest, schema, registry, errors, files."""
