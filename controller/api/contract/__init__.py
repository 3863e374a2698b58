"""What the two programs tell each other: routes, statuses, reports."""
