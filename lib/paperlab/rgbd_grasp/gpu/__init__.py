"""The GPU run: its scope, its data, what its cells measure, its stages. It has not run on a GPU yet."""
