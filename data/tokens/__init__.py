"""What the model reads and what it is scored on."""
