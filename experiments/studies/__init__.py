"""What the questions that train nothing measure."""
