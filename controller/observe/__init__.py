"""Everything that is known of a model at one moment."""
