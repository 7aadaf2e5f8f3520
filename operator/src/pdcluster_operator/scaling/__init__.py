"""How many pods each role gets."""
