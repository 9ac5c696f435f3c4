"""The stages of dvc.yaml from the export on; imported by nobody."""
