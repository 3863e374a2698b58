"""What users write: our kinds, and the configuration file."""
