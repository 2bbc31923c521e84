"""Proof by fault: what is dropped, what breaks meanwhile, and what an outsider finds afterwards."""
