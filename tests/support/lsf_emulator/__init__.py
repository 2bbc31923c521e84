"""An LSF cluster on one machine, for tests: real processes, and LSF's words, delays and lies.

A scheduler process (`mbatchd`) owns every job. The commands in tests/support/bin hand it their
arguments through a Unix socket and print its answer. Of LSF it knows what this project relies on.
"""
