"""What the network is compared with: oracles above it, geometric methods that need no training beside it."""
