"""One machine's workers: which GPU each gets, what keeps them going, and what Prometheus asks of them."""
