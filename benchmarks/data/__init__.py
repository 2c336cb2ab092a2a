"""What is measured with: made from a seed, the same every time."""
