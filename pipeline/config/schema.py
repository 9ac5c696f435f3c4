"""The schema of config sections: serving's own, since manifests and params.yaml are read by the same rules."""

from serving.schema import Problems, Require, build, convert

__all__ = ["Problems", "Require", "build", "convert"]
