"""What is to be solved: laws of problems, drawn on the device."""
