"""The page of a job: one article figure a photograph, failures, timings. Self-contained HTML."""
