"""What the benchmark starts in the environments of the peers, by path; nothing here imports ours but what says so."""
