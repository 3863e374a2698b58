"""What any controller needs and knows of no model: a queue, a write budget, leadership, events."""
