"""From watched objects to statuses: references are resolved, a decision is made, and what came of it is written."""
