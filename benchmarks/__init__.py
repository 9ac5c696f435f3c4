"""Measurements that stand behind the numbers in README and docs."""
