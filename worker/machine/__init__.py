"""One machine's workers: which GPU each gets, what keeps them going, what Prometheus and the doctor ask."""
