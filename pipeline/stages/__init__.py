"""The stages of dvc.yaml before the export; imported by nobody."""
