"""What workers tell each other through Redis: messages, leases, deliveries, and what a job's watchers see."""
