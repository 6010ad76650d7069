"""What is trained, and on what: each file makes a `learner.Learner`."""
