"""Files: what a value was made from, whether it still is so, and who tells when it is not."""
