"""Text to tokens to training windows: everything between a folder and a batch."""
