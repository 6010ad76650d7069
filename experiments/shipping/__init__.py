"""How a network is trained, released with a card, and checked against it."""
