"""Draws the documents' pictures from what the project's own commands give.

`readme` draws docs/figure.png; `article` makes docs/article.md with its figures and numbers.
"""
