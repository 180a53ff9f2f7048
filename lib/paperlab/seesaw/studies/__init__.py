"""What stands behind the tables and figures."""
