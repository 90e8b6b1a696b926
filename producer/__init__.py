"""What submits and watches: command line, sources, jobs. Light: never imports torch."""
