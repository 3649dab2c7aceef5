"""The one way in which pyrlab reports what has gone wrong."""


class Problem(Exception):
    """What went wrong, where, and what to do, in one sentence for the user."""
