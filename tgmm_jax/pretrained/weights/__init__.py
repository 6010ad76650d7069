"""Shipped networks: parameters as safetensors, and a card each, as JSON."""
