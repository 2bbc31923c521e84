"""What the flow's steps do, as functions that a test can call without Metaflow."""
