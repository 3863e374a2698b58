"""The programs, each composed of its parts."""
