"""The tables behind the exhibits: the fit, the split by slack, contention, switching, and one sweep per open point."""
