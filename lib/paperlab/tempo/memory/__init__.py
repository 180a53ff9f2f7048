"""What training keeps: closed forms, an exact ledger, the step's peak, capacity, and Auto-Tempo."""
