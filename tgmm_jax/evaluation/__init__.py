"""Who is scored, on which problems, and the tidy tables that come out."""
