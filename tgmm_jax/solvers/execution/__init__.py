"""How problems are run: many at a time, and as programs that are soon there."""
