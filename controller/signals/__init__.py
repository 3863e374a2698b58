"""Where measurements come from: one file a source."""
