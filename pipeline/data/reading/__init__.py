"""Reading a prepared dataset: pairs, crops, batches."""
