"""Watch a directory, batch what arrives, run it through Metaflow, record the outcome."""
