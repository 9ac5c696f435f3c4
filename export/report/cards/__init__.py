"""What travels with a branch's engines: a model card in Hugging Face's form and an unsigned in-toto statement."""
