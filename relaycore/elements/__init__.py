"""Elements that come with the relay, each about a page: to use, and to learn from. docs/elements.md has their options.

Owns: nothing; each is a module of its own. Never here: an import, so that a relay loads what its configuration names.
"""
