"""Reading CSV without loss, and writing it."""
