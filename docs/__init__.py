"""The documents, and in `figures` the code that draws their pictures."""
