"""Studies of Mist: tables for the experiments, measured and predicted."""
