"""ds-flow: watches a directory, batches what arrives, runs it through Metaflow, records the outcome."""
