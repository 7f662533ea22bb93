"""Data sets as they are published, brought to a ``cases.csv``: one file a kind of set."""
