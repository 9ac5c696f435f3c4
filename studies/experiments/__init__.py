"""Experiments of pairs: the protocol of one, its runs, what they are judged by, and the record of its pairs."""
