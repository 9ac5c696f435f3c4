"""The golden files beside an engine: what it computes here, for the device to test itself against without torch."""
