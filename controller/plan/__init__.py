"""From intent, facts and memory to what shall be written. Pure."""
