"""How values are checked: scalars, headers, rules for the API server, and the words for what is wrong."""
