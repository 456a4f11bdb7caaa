"""Background calls of chat front ends: titles, tags, follow-ups, connection tests, and what they are answered with.

`rules.toml` has the templates of known front ends. `shape.py` judges unknown ones, with the words of `vocabulary.toml`.
"""
