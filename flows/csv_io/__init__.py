"""Read CSV without loss, and write it."""
