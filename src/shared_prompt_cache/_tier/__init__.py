"""The second tier: what stands between the memory of one cache and its store."""
